"""Finetune the base on sets of examples (paper: LoRA, 3 epochs, batch size 8), side by side.

A trial is known by its content (examples in order, base, settings, seed), so that one that two
experiments ask for is trained once, and a killed run goes on after the last one trained, or from
the last checkpoint of one that takes long.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from im_assets.experiments.experiment import Experiment, seed_of, some
from im_assets.experiments.lineage import LineageError, set_id_of
from im_assets.experiments.trainers import TrainingJob, trainer_key, trainer_of
from im_resources.adapter_store import AdapterStore, Busy
from im_resources.gpu import GpuResource, usable_cores
from im_resources.language_model.template_registry import learned_key
from im_resources.study import Study, fingerprint
from im_resources.turns import turns_columns
from im_resources.usage import count
from im_resources.workplace import ItemsLost, OnStep, Workplace

if TYPE_CHECKING:
    from im_resources.language_model.engines import Engines
    from im_resources.language_model.loading import LoadedModel

# Changes when the same set and settings would train to another adapter.
CODE_VERSION = 1

# So many that fail, with none that succeeds: it is not the sets, and the rest is not tried.
HOPELESS = 3


class FinetuneError(RuntimeError):
    """Some finetunes failed; the others are in the store. ``failed``: why, by partition key."""

    def __init__(self, failed: Mapping[str, Exception], tried: int, total: int) -> None:
        self.failed = dict(failed)
        left = f", {total - tried} were given up" if tried < total else ""
        reasons = "; ".join(f"{key}: {type(e).__name__}: {e}" for key, e in failed.items())
        super().__init__(
            f"{len(failed)} of {total} finetunes failed{left}; the others are kept, and are not "
            f"trained again when you materialize these: {reasons}"
        )


@dataclass(frozen=True)
class Finetune:
    """One trial to train: its partition key, seed, and members in order."""

    partition: str
    seed: int
    examples: pd.DataFrame  # example_id, instruction, input, output; turns where some have them

    @property
    def set_id(self) -> str:
        """The fingerprint of the set."""
        return set_id_of(self.examples["example_id"])

    def trial_id(self, study: Study, base: str) -> str:
        """Everything that changes the adapter: data, base, prompt, training settings, code."""
        return fingerprint(
            CODE_VERSION,
            base,
            *learned_key(study.models),
            trainer_key(study.finetuning),
            self.seed,
            self.examples["example_id"].tolist(),
        )


@dataclass(frozen=True)
class Trained:
    """A trial that is in the store, with its fingerprints; ``now``: it was trained just now."""

    trial_id: str
    set_id: str
    settings_id: str
    manifest: Mapping[str, Any]
    now: bool


def training_settings_id(study: Study) -> str:
    """The fingerprint of what a trial depends on beside its set, base and seed."""
    return fingerprint(CODE_VERSION, *learned_key(study.models), trainer_key(study.finetuning))


def finetunes(
    samples: pd.DataFrame, examples: pd.DataFrame, experiment: Experiment
) -> dict[str, Finetune]:
    """The finetunes of all sets in ``samples``, by partition key.

    Raises LineageError when a set holds an example that the pool no longer has, or is not the set
    that was drawn: it would silently be finetuned on another one.
    """
    columns = ["example_id", "instruction", "input", "output", *turns_columns(examples)]
    texts = examples[columns]
    found = {}
    for key, members in samples.sort_values("position").groupby(experiment.column):
        rows = members[["example_id"]].merge(
            texts, how="left", on="example_id", validate="one_to_one", indicator=True
        )
        gone = rows.loc[rows["_merge"] != "both", "example_id"].tolist()
        if gone:
            raise LineageError(
                f"{experiment.samples}, {key}: {len(gone)} of its {len(rows)} examples are no "
                f"longer in {experiment.pool} ({some(gone)}); materialize {experiment.samples} "
                "for it again"
            )
        finetune = Finetune(str(key), seed_of(str(key)), rows.drop(columns="_merge"))
        if set(members["set_id"]) != {finetune.set_id}:
            raise LineageError(
                f"{experiment.samples}, {key}: its rows are not the set that was drawn; "
                f"materialize {experiment.samples} for it again"
            )
        found[str(key)] = finetune
    return found


def finetune_all(
    work: Mapping[str, Finetune],
    study: Study,
    gpu: GpuResource,
    store: AdapterStore,
    on_step: OnStep | None = None,
) -> Iterator[tuple[str, Trained]]:
    """Train what is not in the store yet; yield (partition, trained), each as soon as it is there.

    Of finetunes that are the same trial, one is trained.

    Raises FinetuneError at the end when some failed. What would hit the next one too (a full disk)
    is raised at once.
    """
    store.clean()
    base_key, settings_id = gpu.base_fingerprint(study), training_settings_id(study)
    partitions: dict[str, list[str]] = {}
    for partition, finetune in work.items():
        partitions.setdefault(finetune.trial_id(study, base_key), []).append(partition)
    todo: list[str] = []
    for trial_id, same in partitions.items():
        manifest = store.find(trial_id)
        if manifest is None:
            todo.append(trial_id)
            continue
        count(found=1, seconds_saved=manifest["seconds"])
        for partition in same:
            set_id = work[partition].set_id
            yield partition, Trained(trial_id, set_id, settings_id, manifest, False)
    if not todo:
        return  # the base model is not loaded for nothing
    firsts = {trial_id: work[partitions[trial_id][0]] for trial_id in todo}
    failed: dict[str, Exception] = {}
    trained = 0
    here = Workplace(study, gpu, store, on_step=on_step)
    try:
        for trial_id, result in gpu.run(train_trials, firsts, here):
            if isinstance(result, Exception):
                failed |= dict.fromkeys(partitions[trial_id], result)
                if not trained and len(failed) >= HOPELESS:
                    break
                continue
            trained += 1
            manifest, now = result
            count(computed=int(now), found=int(not now))
            for number, partition in enumerate(partitions[trial_id]):
                set_id, first = work[partition].set_id, number == 0
                yield partition, Trained(trial_id, set_id, settings_id, manifest, now and first)
    except ItemsLost as lost:
        for trial_id, reason in lost.failed.items():
            failed |= dict.fromkeys(partitions[trial_id], reason)
    if failed:
        one_of_them = next(iter(failed.values()))
        raise FinetuneError(failed, trained + len(failed), len(todo)) from one_of_them


def train_trials(
    work: Mapping[str, Finetune], here: Workplace
) -> Iterator[tuple[str, tuple[dict[str, Any], bool] | Exception]]:
    """A task: yields each trial with (manifest, whether it was trained here), or why it failed."""
    from im_resources.language_model.checkpoints import checkpointed
    from im_resources.language_model.finetuned import weights_file
    from im_resources.language_model.memory import enough_memory
    from im_resources.language_model.side_by_side import Stopped, run_side_by_side, stop_point

    study, gpu, store, on_step = here.study, here.gpu, here.store, here.on_step
    base, (trainer, options) = gpu.base_model(study), trainer_of(study.finetuning)
    settings = study.finetuning
    engines, at_once = (
        _engines(base, next(iter(work.values())), len(work), study, gpu)
        if trainer.together
        else (None, None)
    )
    lower = {
        "finetuning.batch_size": settings.batch_size,
        "models.max_length": study.models.max_length,
        "finetuning.gradient_checkpointing (true)": settings.gradient_checkpointing,
        "the gpu resource's side_by_side": at_once or gpu.workers,
    }

    def one(trial_id: str, wait: Callable[[], object] | None = None) -> tuple[dict[str, Any], bool]:
        finetune, now = work[trial_id], False
        report = None if on_step is None else lambda *step: on_step(finetune.partition, *step)
        facts: dict[str, Any] = {
            "seed": finetune.seed,
            "set": finetune.set_id,
            "examples": len(finetune.examples),
            "precision": base.precision,
            "base": base.fingerprint,
            "settings": training_settings_id(study),
            "finetuning": settings.model_dump(mode="json"),
        }

        def train(folder: Path) -> None:
            nonlocal now
            job = TrainingJob(
                base,
                finetune.examples,
                study.models,
                settings,
                finetune.seed,
                folder,
                report,
                engines,
            )
            with (
                enough_memory(f"finetuning {finetune.partition}", lower),
                checkpointed(store.checkpoints(trial_id), trial_id, settings.checkpoint_minutes),
            ):
                training = trainer.train(job, **options)
            weights_file(folder)  # a trainer that wrote nothing is not published as a trial
            facts["losses"] = [round(loss, 6) for loss in training.losses]
            facts["tokens"] = training.tokens
            facts["seconds"] = round(training.seconds, 3)
            now = True

        return store.publish(trial_id, train, facts, wait), now

    def unless_busy(
        trial_id: str, wait: Callable[[], object] | None = None
    ) -> tuple[dict[str, Any], bool] | Exception | None:
        try:
            return one(trial_id, wait)
        except Busy:
            return None
        except (OSError, Stopped):
            raise
        except Exception as error:  # of this set: the other sets are trained all the same
            return error

    # What another process is training comes last: meanwhile, the two share the work.
    busy: list[str] = []
    for trial_id, done in run_side_by_side(unless_busy, list(work), gpu, at_once):
        if done is None:
            busy.append(trial_id)
        else:
            yield trial_id, done
    for trial_id, done in run_side_by_side(
        lambda t: unless_busy(t, stop_point), busy, gpu, at_once
    ):
        assert done is not None  # it has waited
        yield trial_id, done


def _engines(
    base: "LoadedModel", first: Finetune, number: int, study: Study, gpu: GpuResource
) -> "tuple[Engines | None, int | None]":
    """Where so many trainings meet in shared steps, and how many at once; None: it cannot be."""
    from im_resources.language_model.engines import Choice
    from im_resources.language_model.loading import ModelError
    from im_resources.language_model.lora import add_adapter, engine_for, engines_of
    from im_resources.language_model.probe import side_by_side
    from im_resources.language_model.prompts import encode_examples

    settings, longest = study.finetuning, study.models.max_length
    cores = usable_cores() if base.device.type == "cpu" else 0
    try:
        engine = engine_for(add_adapter(base, settings, 0), settings, longest)
    except ModelError:  # told by each of the trainings
        return None, None
    if engine is None:
        return None, None
    asked = gpu.side_by_side or (1 if number == 1 else 0)
    if asked:
        choice = Choice.asked(asked, cores)
    else:
        few = first.examples.head(settings.batch_size)
        rows = encode_examples(base.tokenizer, study.models, few)
        choice = side_by_side(base, settings, longest, rows, cores).for_fewer(number, cores)
    return engines_of(base, settings, longest, choice, engine), asked or choice.at_once
