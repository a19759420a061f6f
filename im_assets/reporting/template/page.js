"use strict";
// The page is complete without this: it adds tooltips, sorting, and hiding a series.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  let marked = null;

  function show(mark) {
    if (marked) marked.classList.remove("at");
    marked = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("at");
    tip.textContent = mark.dataset.tip;
    const place = mark.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const left = Math.min(Math.max(8, place.left + place.width / 2 - tip.offsetWidth / 2),
      width - tip.offsetWidth - 8);
    const above = place.top - tip.offsetHeight - 6;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 0 ? above : place.bottom + 6) + window.scrollY}px`;
  }

  for (const chart of document.querySelectorAll("svg.chart")) {
    const marks = [...chart.querySelectorAll(".mark > title")].map((title) => {
      const mark = title.parentNode;
      mark.dataset.tip = title.textContent;
      title.remove();
      mark.addEventListener("pointerenter", () => show(mark));
      mark.addEventListener("pointerleave", () => show(null));
      return mark;
    });
    if (!marks.length) continue;
    chart.setAttribute("role", "group");
    chart.setAttribute("tabindex", "0");
    let at = -1;
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") show(null);
      if (!step || event.target !== chart) return;
      event.preventDefault();
      at = (at + step + marks.length) % marks.length;
      show(marks[at]);
    });
    chart.addEventListener("blur", () => show(null));
  }

  for (const key of document.querySelectorAll(".chart .key")) {
    key.setAttribute("role", "button");
    key.setAttribute("tabindex", "0");
    key.setAttribute("aria-pressed", "true");
    const toggle = () => {
      const off = key.getAttribute("aria-pressed") === "true";
      for (const chart of key.closest("figure").querySelectorAll(".chart")) {
        for (const part of chart.querySelectorAll("[data-series]")) {
          if (part.dataset.series !== key.dataset.series) continue;
          if (part.classList.contains("key")) part.setAttribute("aria-pressed", String(!off));
          else part.classList.toggle("off", off);
        }
      }
    };
    key.addEventListener("click", toggle);
    key.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle();
    });
  }

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[index].dataset.value ?? null;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          const number = Number(x) - Number(y);
          const order = Number.isNaN(number) ? x.localeCompare(y) : number;
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  }
})();
