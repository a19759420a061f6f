"""Trainings of several adapters over one base, in shared steps.

A step takes the next batch of every training under way, lays all rows end to end, runs the frozen
base over them once, and gives each adapter its own loss, gradient, clipping, AdamW step and
schedule: a training sees nothing of its neighbours, and its numbers are those that it would have
alone, but for rounding (a product of other shape sums in another order). Trainings come and go at
any step, so none waits for a longer one.

Each training belongs to a thread of its own, which prepares it, waits for it and keeps its result;
one of these threads runs the steps for all, the next one goes on when it is done.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from im_resources.language_model.checkpoints import Position, checkpoint_of
from im_resources.language_model.flat import FlatWeights
from im_resources.language_model.lean import make_lean
from im_resources.language_model.linear_cross_entropy import linear_cross_entropy
from im_resources.language_model.loading import replica_of
from im_resources.language_model.memory import is_refused, release
from im_resources.language_model.packable import attend_by_rows
from im_resources.language_model.packing import UnpackableError, pack, packed_states
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.side_by_side import stop_point
from im_resources.language_model.slots import Slots, SlottedLayer, can_be_slotted, lora_layers
from im_resources.language_model.training import (
    CHECKPOINTING,
    OnStep,
    Training,
    not_finite,
    plan_of,
    schedule_of,
    without_dropout,
)
from im_resources.study import FinetuningSettings

log = logging.getLogger(__name__)


class Engine:
    """Trains the adapters that are given to it in shared steps, those of several threads at once.

    Args:
        adapter: a PEFT model over a replica of the base; any one, for the layers it adapts.
        longest: tokens of the longest row there will be.
        threads: of the CPU, for a step; 0: as torch has it.

    Raises:
        UnpackableError: the base's attention, or its adapters, cannot be computed like this.
    """

    def __init__(
        self, adapter: Any, settings: FinetuningSettings, longest: int, threads: int = 0
    ) -> None:
        self.threads = threads
        self.limit = 0  # most adapters in one pass, once memory has not sufficed for more; 0: any
        self.tokens, self.seconds = 0, 0.0  # of all steps
        self.kept = 0  # bytes, of the last step that was measured
        self._slots = Slots()
        self._model = carrier_of(adapter.get_base_model(), self._slots, longest)
        if settings.gradient_checkpointing:
            # Called gradient_checkpointing_enable by older releases of transformers 5.
            enable = getattr(self._model, "activation_checkpointing_enable", None)
            (enable or self._model.gradient_checkpointing_enable)(CHECKPOINTING)
        self._running: list[_Run] = []
        self._changed = threading.Condition()
        self._led = False

    def train(
        self,
        adapter: Any,
        encoded: Sequence[Encoded],
        settings: FinetuningSettings,
        seed: int,
        on_step: OnStep | None = None,
    ) -> Training:
        """Finetune the adapter in place, beside those of other threads; see ``training.train``.

        ``seconds`` of the result is its share of the steps' time, by its share of the tokens.
        """
        run = _Run(adapter, encoded, settings, seed, on_step)
        try:
            with self._changed:
                self._running.append(run)
            while not run.ended:
                if self._lead(run):
                    self._led_until_it_ends(run)
        finally:
            with self._changed:
                if run in self._running:
                    self._running.remove(run)
                self._changed.notify_all()
            run.weights.release()
        if run.error is not None:
            raise run.error
        adapter.eval()
        return Training(run.done.losses, run.done.tokens, run.done.seconds)

    def rate(
        self, adapters: Sequence[Any], rows: Sequence[Encoded], settings: FinetuningSettings
    ) -> float:
        """Tokens a second of a step of all these adapters, each on these rows; moves weights.

        ``kept`` is what the step keeps for its backward pass.

        Raises what the step raises, an allocator's refusal among others.
        """
        one_epoch = settings.model_copy(update={"epochs": 3, "batch_size": len(rows)})
        runs = [_Run(adapter, rows, one_epoch, 0, None) for adapter in adapters]
        try:
            with self._on_its_threads():
                with self._counting_what_is_kept():
                    self._step_together(runs)  # also: what is done once only
                before = self.tokens, self.seconds
                self._step_together(runs)
            return (self.tokens - before[0]) / (self.seconds - before[1])
        finally:
            for run in runs:
                run.weights.release()

    @contextmanager
    def _on_its_threads(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    @contextmanager
    def _counting_what_is_kept(self) -> Iterator[None]:
        weights = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        found: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self.kept = sum(found.values())

    def _lead(self, run: "_Run") -> bool:
        """Wait until this thread runs the steps (True), or its training has ended."""
        with self._changed:
            self._changed.wait_for(lambda: run.ended or not self._led, timeout=0.5)
            if not run.ended and not self._led:
                self._led = True
                return True
        stop_point()
        return False

    def _led_until_it_ends(self, run: "_Run") -> None:
        try:
            with self._on_its_threads():
                while not run.ended:
                    stop_point()
                    with self._changed:
                        running = [one for one in self._running if not one.ended]
                    for group in self._groups(running):
                        self._step(group)
        finally:
            with self._changed:
                self._led = False
                self._changed.notify_all()

    def _groups(self, running: "list[_Run]") -> "Iterator[list[_Run]]":
        start = 0
        while start < len(running):
            size = self.limit or len(running)
            yield running[start : start + size]
            start += size

    def _step(self, runs: "list[_Run]") -> None:
        """One step of each; of those that cannot be done together, in smaller groups."""
        try:
            self._step_together(runs)
            return
        except Exception as error:
            failure = error.with_traceback(None)  # whose frames would hold the step's tensors
        for run in runs:
            run.weights.zero_grad()
        release(self._model.device)
        if len(runs) == 1:
            runs[0].end(failure)
            self._tell()
            return
        half = len(runs) // 2
        if is_refused(failure):
            self.limit = half
            log.warning(
                "memory does not suffice for %d adapters at once; going on with %d", len(runs), half
            )
        for part in (runs[:half], runs[half:]):
            self._step(part)

    def _step_together(self, runs: "list[_Run]") -> None:
        start = time.perf_counter()
        model = self._model
        packed = pack([run.rows() for run in runs], model.device)
        share = torch.cat(
            [
                torch.full((part.stop - part.start,), 1 / max(1, part.stop - part.start))
                for _, part in packed.parts
            ]
        ).to(model.device)
        self._slots.parts = [
            (run.layers, tokens) for run, (tokens, _) in zip(runs, packed.parts, strict=True)
        ]
        try:
            states = packed_states(model, packed).index_select(0, packed.predictor)
            head = model.get_output_embeddings()
            total, nll = linear_cross_entropy(head, states, packed.target, share)
            total.backward()
        finally:
            self._slots.parts = []
        # One transfer for all.
        losses = torch.stack([nll[part].mean() for _, part in packed.parts]).tolist()
        tokens = [part.stop - part.start for part, _ in packed.parts]
        for run, loss in zip(runs, losses, strict=True):
            try:
                run.update(loss)
            except Exception as error:  # not raised: the others have moved, and would move twice
                run.end(error)
        seconds = time.perf_counter() - start
        self.tokens += sum(tokens)
        self.seconds += seconds
        for run, mine in zip(runs, tokens, strict=True):
            run.finish_step(mine, seconds * mine / sum(tokens))
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Run:
    """One training under way."""

    def __init__(
        self,
        adapter: Any,
        encoded: Sequence[Encoded],
        settings: FinetuningSettings,
        seed: int,
        on_step: OnStep | None,
    ) -> None:
        model = adapter.get_base_model()
        self.layers = lora_layers(model)
        self.weights = FlatWeights([p for p in adapter.parameters() if p.requires_grad])
        self.encoded, self.settings, self.on_step = encoded, settings, on_step
        self.optimizer = torch.optim.AdamW(
            self.weights.flat, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.plan, drawn = plan_of(encoded, settings, seed)
        self.schedule = schedule_of(self.optimizer, settings, len(self.plan))
        self.checkpoint = checkpoint_of(
            model, self.weights.flat, self.optimizer, self.schedule, settings, *drawn, None
        )
        self.done = self.checkpoint.resume() if self.checkpoint else Position()
        self.error: BaseException | None = None
        self.ended = len(self.done.losses) >= len(self.plan)

    def rows(self) -> list[Encoded]:
        """The batch of the next step."""
        return [self.encoded[i] for i in self.plan[len(self.done.losses)]]

    def update(self, loss: float) -> None:
        """Move the weights along their gradients, which a pass has left."""
        self.done.losses.append(loss)
        if loss - loss != 0:
            text = not_finite(self.done.losses, len(self.plan), self.settings)
            self.end(FloatingPointError(text))
            return
        torch.nn.utils.clip_grad_norm_(self.weights.flat, self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.weights.zero_grad()

    def finish_step(self, tokens: int, seconds: float) -> None:
        """Count the step, tell of it, and write the checkpoint if it is due."""
        if self.ended:
            return
        self.done.tokens += tokens
        self.done.seconds += seconds
        step, steps = len(self.done.losses), len(self.plan)
        try:
            if self.on_step is not None:
                self.on_step(step, steps, tokens)
            if self.checkpoint is not None and step < steps:
                self.checkpoint.save_if_due(self.done)
        except BaseException as error:  # of this training's own: raised in its own thread
            self.end(error)
        self.ended = self.ended or step == steps

    def end(self, error: BaseException) -> None:
        """It ends with this error."""
        self.error, self.ended = error, True


def carrier_of(adapted: Any, slots: Slots, longest: int) -> Any:
    """A replica that runs several adapters like the one in ``adapted``, and rows laid end to end.

    Raises UnpackableError where it cannot be.
    """
    layers = lora_layers(adapted)
    unknown = [name for name, layer in layers.items() if not can_be_slotted(layer)]
    if unknown:
        raise UnpackableError(f"it adapts {unknown[0]}, which is no linear layer")
    model = without_dropout(replica_of(adapted).train())
    for name, layer in lora_layers(model).items():
        model.set_submodule(name, SlottedLayer(layer.base_layer, name, slots))
    model.requires_grad_(False)
    if type(model.get_output_embeddings()) is not torch.nn.Linear:
        raise UnpackableError("its output layer is no plain linear layer")
    attend_by_rows(model, longest)
    make_lean(model)
    return model
