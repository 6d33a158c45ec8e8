"""`hardmine refresh CONFIG --to EXPORTS`: from new data to a decision, and to what is served from then on.

    data as before            nothing
    few new labels            the live model stays; items that changed are embedded
    enough new labels         probe, from the live model: no → as above
                              else one mined round from the live model, and the gate
                                  not "no" → an export of the new model; live with --live and a yes
                                  no → as above

Each step is resumable, so the same command after a failure goes on. A model that is kept is served with the new items at once;
a new model is another export, to be compared before traffic sees it, unless --live says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.commits import Commit, digest
from cluster.errors import ConfigError
from cluster.session.progress import Progress
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.config.derived import with_settings
from jobs.finished.gate.gate import gate
from jobs.record.record import RunRecord
from jobs.record.stages import Kind, Stage
from jobs.run.driver import open_context, run
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run, export_source
from jobs.serving.export.stamp import MODEL, live_name
from jobs.serving.refresh.changes import Changes
from jobs.serving.refresh.compare_data import compare_data
from jobs.serving.refresh.decide import Decision, after_gate, after_probe, first_decision
from jobs.serving.refresh.fresh_items import FreshItems
from jobs.serving.refresh.history import append, read_history
from jobs.serving.search.opened import Opened, open_export
from jobs.serving.search.query_encoder import describe_query
from jobs.stages.ingest.fingerprints import fingerprints
from jobs.trials.probe import probe

SAME_SHAPE = "the new model has the shape of the one before"


@dataclass
class Refresh:
    """One call."""

    config: Config
    home: Store
    budget: Budget
    progress: Progress
    takeover: bool = False
    live: bool = False
    """Let a new model that passed the gate be live at once."""
    clock: Callable[[], float] = time.time

    def run(self) -> dict[str, Any]:
        """Decide, act, and write the decision down.

        Returns:
            {"action", "reason", "live", "data", "at", "seconds"}, and as far as it went "run", "model", "changes", "probe",
            "gate", "export", "embedded", "saved_s".

        Raises:
            ConfigError: nothing is live yet, or its model reads no texts.
        """
        started = self.clock()
        export = self._open_live()
        data, history = fingerprints(self.config), read_history(self.home)
        same = [one for one in history if one["data"] == data and one["live"] == export.name]
        if export.stamp.run.get("data") == data or same:
            why = f"decided at {same[-1]['at']}" if same else "the live export is of it"
            decision, entry = Decision("nothing", f"the data is as it was: {why}"), dict[str, Any]()
        else:
            decision, entry = self._on_new_data(export, data, history)
        entry = {"action": decision.action, "reason": decision.reason, "live": live_name(self.home), "data": data} | entry
        entry |= {"at": _time(started), "seconds": round(self.clock() - started, 1)}
        append(self.home, entry)
        return entry

    def _open_live(self) -> Opened:
        if live_name(self.home) is None:
            raise ConfigError(
                f"--to {self.home.root}: no export is live there; a refresh starts from one: `hardmine run`, then "
                f"`hardmine export {self.config.root} --to {self.home.root}`"
            )
        export = open_export(self.home.root, self.home.settings)
        if export.stamp.reads != "texts":
            raise ConfigError(
                f"a refresh goes on from a model of texts; that of {export.name} reads {describe_query(export.stamp.reads)}. "
                f"Train it again on the new data: `hardmine run` with another name, then `hardmine export`"
            )
        return export

    def _on_new_data(
        self, export: Opened, data: dict[str, Any], history: list[dict[str, Any]]
    ) -> tuple[Decision, dict[str, Any]]:
        settings = refresh_config(self.config, self.home, export.name, data)
        with open_context(settings, progress=self.progress, takeover=self.takeover) as context:
            ingest, store = context.need(Stage(Kind.INGEST)), context.store
        model = f"{export.stamp.run['name']}, {export.stamp.run['label']}"
        tried = [one["run"] for one in history if one.get("model") == model and "probe" in one]
        before = self._run(
            tried[-1] if tried else str(export.stamp.run["name"])
        )  # labels that the model knows, or that did not help
        changes = compare_data(export, store, ingest, before)
        decision = first_decision(changes)
        self.progress.say(f"  {decision.reason}")
        entry: dict[str, Any] = {"run": settings.name, "model": model, "changes": changes.as_json()}
        if decision.action == "train":
            decision, told = self._train(settings, changes, quantize=export.stamp.quantized is not None)
            entry |= told
        else:
            entry["saved_s"] = _seconds_of(before)
        if decision.action == "items":
            source = FreshItems(export, store, ingest, data, say=self.progress.say)
            small = export.stamp.quantized is not None
            written = export_source(source, self.home, self.budget, live=True, quantize=small, say=self.progress.say)
            entry |= {"export": written.name, "embedded": source.embedded}
        return decision, entry | {"live": live_name(self.home)}

    def _train(self, settings: Config, changes: Changes, *, quantize: bool) -> tuple[Decision, dict[str, Any]]:
        """Probe, train, gate."""
        probed = probe(settings, progress=self.progress, takeover=self.takeover)
        told: dict[str, Any] = {"probe": {"verdict": probed.lead.answer, "reason": probed.lead.reason}}
        decision = after_probe(changes, probed.lead.answer, probed.lead.reason)
        if decision.action != "train":
            return decision, told
        run(settings, progress=self.progress, takeover=self.takeover)
        store = Store(settings.root, settings.storage)
        judged = gate(store, without_latency=SAME_SHAPE)
        told["gate"] = {"passed": judged["passed"], "verdict": judged["verdict"]}
        if judged["passed"] is False:
            return after_gate(changes, str(judged["verdict"])), told
        live = self.live and bool(judged["passed"])
        written = export_run(store, self.home, self.budget, live=live, quantize=quantize, say=self.progress.say)
        told |= {"export": written.name, "embedded": written.stamp.items}
        answer = "passed" if judged["passed"] else "leaves to you"
        return Decision("train", f"{decision.reason}; the gate {answer} the model of {written.stamp.run['label']}"), told

    def _run(self, name: str) -> Store:
        return Store(f"{self.config.output.rstrip('/')}/{name}", self.config.storage)


def refresh_config(config: Config, home: Store, live: str, data: dict[str, Any]) -> Config:
    """The run of a refresh: one mined round on the new data from the live model. Its name holds what it starts from."""
    return with_settings(
        config,
        {
            "name": f"{config.name[:80]}-{digest({'data': data, 'from': live})[:8]}",
            "encoder.model": home.url(f"{live}/{MODEL}"),
            "rounds.mined": 1,
            "rounds.warmup_epochs": 0,
            "rounds.compare_random": False,
        },
        source="the refresh's configuration",
    )


def _seconds_of(run: Store) -> float | None:
    """Seconds that the last training of a run took, with its mining and measuring; None: the run is gone."""
    commits: list[Commit] = RunRecord.read(run).all
    rounds = [commit for commit in commits if commit.name.startswith("round-")]
    last = max((commit.name[:8] for commit in rounds), default=None)
    return round(sum(commit.seconds["wall"] for commit in rounds if commit.name.startswith(str(last))), 1) if last else None


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
