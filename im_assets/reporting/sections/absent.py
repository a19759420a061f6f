"""What a section says when its part of the study is not there."""

from im_assets.reporting.blocks import Section, Text
from im_assets.reporting.gather import Gathered


def not_in_profile(key: str, title: str, setting: str, what: str) -> Section:
    """The profile leaves the part out: which setting, or command, brings it."""
    text = (
        f"Not part of this study: {what} To have it, set {setting} in the profile; make demo-full "
        "shows more parts than make demo."
    )
    return Section(key, title, (Text(text, "absent"),))


def not_made(key: str, title: str, *assets: str) -> Section:
    """The profile asks for the part, but its tables are not there."""
    names = " and ".join(assets)
    text = f"Not there yet: materialize {names} (or the whole study), then this report again."
    return Section(key, title, (Text(text, "absent"),))


def of_earlier_rule(found: Gathered, *tables: str) -> tuple[Text, ...]:
    """A warning that what stands in these tables is about another rule than the one reported."""
    earlier = [name for name in tables if found.of_earlier_rule(found.get(name))]
    if not earlier:
        return ()
    text = (
        f"{' and '.join(earlier)} belong to an earlier rule, not to the one above: materialize "
        "them again before reading them as its results."
    )
    return (Text(text, "warning"),)


def lacking(found: Gathered, *tables: str) -> tuple[str, ...]:
    """Those of the tables that are missing or empty."""
    return tuple(name for name in tables if found.get(name) is None)
