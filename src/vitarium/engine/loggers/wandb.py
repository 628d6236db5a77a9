"""Runs of Weights & Biases, one per model; offline ones are uploaded by `wandb sync`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vitarium.core import files
from vitarium.core.filenames import file_name
from vitarium.engine.loggers.base import LoggerConfig, Run, RunLog, RunStatus, logger

_EXIT_CODES: Mapping[RunStatus, int] = {
    "finished": 0,
    "diverged": 1,
    "failed": 1,
    "interrupted": 255,
}
"""By which the tool shows a run as finished, failed or killed."""


class Wandb(LoggerConfig):
    """Where runs go."""

    project: str = ""
    """Project of the runs; "": the blueprint's name."""
    entity: str = ""
    """User or team; "": whoever is logged in."""
    mode: Literal["offline", "online"] = "offline"
    """`offline`: `wandb sync` of the folder uploads the runs; `online`: while models train."""


class _WandbRun(RunLog):
    """A file beside the runs knows the last epoch, and which offline run is not closed.

    The tool writes with a delay, so a process that is killed loses epochs: what it logged offline
    is discarded and logged anew, and online the server knows the last step that it has.
    """

    def __init__(self, config: Wandb, run: Run, folder: Path) -> None:
        self._config, self._run, self._folder = config, run, folder
        self._file = folder / "logged" / f"{run.id}.json"
        self._opened: Any = None
        self._unclosed = ""
        if files.exists(self._file):
            noted = files.read_json(self._file)
            self.last_epoch, self._unclosed = int(noted["last_epoch"]), noted["unclosed"]
        self._epoch = self.last_epoch

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        opened = self._open()
        if epoch >= opened.step:
            opened.log({"epoch": epoch, **metrics}, step=epoch)
        self._epoch = epoch

    def close(self, status: RunStatus) -> None:
        if self._opened:
            self._opened.summary["status"] = status
            self._opened.finish(exit_code=_EXIT_CODES[status])
            self._note(self._epoch)

    def _open(self) -> Any:
        if self._opened is None:
            import wandb

            self._folder.mkdir(parents=True, exist_ok=True)
            if self._unclosed and self._config.mode == "offline":
                files.discard(self._folder / "wandb" / file_name(self._unclosed), root=self._folder)
            run, config = self._run, self._config
            self._opened = wandb.init(
                project=config.project or run.blueprint,
                entity=config.entity or None,
                id=run.id,
                name=f"{run.stage} {run.id[:8]}",
                group=run.stage,
                config=run.hyperparameters,
                dir=str(self._folder),
                mode=config.mode,
                resume="allow",
                reinit="create_new",  # several models are trained at a time
                settings=_settings(),
            )
            self._note(self.last_epoch, Path(self._opened.settings.sync_dir).name)
        return self._opened

    def _note(self, last_epoch: int, unclosed: str = "") -> None:
        files.write_json(self._file, {"last_epoch": last_epoch, "unclosed": unclosed})


def _settings() -> Any:
    """Without what the tool records of the process, which trains many models, and says of it."""
    from wandb import Settings

    return Settings(
        silent=True,
        console="off",
        symlink=False,
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_save_requirements=False,
    )


@logger("wandb", title="Weights & Biases", extra="wandb")
def wandb_runs(config: Wandb, run: Run, folder: Path) -> RunLog:
    """Runs of Weights & Biases, which have their models' ids and are grouped by stage."""
    return _WandbRun(config, run, folder)
