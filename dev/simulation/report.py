"""Reports the results of runs: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any

from dev.simulation.run import Outcome


def as_json(outcomes: Sequence[Outcome]) -> str:
    return json.dumps({"runs": [_run(outcome) for outcome in outcomes]}, indent=2)


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Return a table with one column per run and one row per figure."""
    runs = [_flat(outcome) for outcome in outcomes]
    names = list(dict.fromkeys(name for run in runs for name in run))
    rows = [[name, *(run.get(name, "0") for run in runs)] for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(len(runs) + 1)]
    return "\n".join(
        "  ".join(
            [
                f"{row[0]:<{widths[0]}}",
                *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    )


def violation_text(outcome: Outcome) -> str:
    """Return everything that helps to find out why a run failed; '' if it did not."""
    violation = outcome.violation
    if violation is None:
        return ""
    account = f" of account {violation.account}" if violation.account else ""
    return "\n".join(
        [
            f"VIOLATION {violation}{account}",
            f"after {violation.at / 86_400:.4f} virtual days of seed {outcome.plan.seed}; the last events:",
            *(f"  {line}" for line in violation.trail),
            f"To see it again: {outcome.plan.command}",
        ]
    )


def _flat(outcome: Outcome) -> dict[str, str]:
    plan, counts = outcome.plan, outcome.counts
    flat = {
        "seed": str(plan.seed),
        "refresh tokens": "rotate" if plan.rotating else "stay",
        "accounts": f"{plan.accounts:,}",
        "days": f"{plan.days:g}",
        "renewals": f"{counts.renewals:,}",
        "calls to RD Station": f"{outcome.calls:,}",
        "lapses": str(int(outcome.violation is not None and outcome.violation.rule == "lapse")),
        "double exchanges": str(int(outcome.violation is not None and outcome.violation.rule == "double")),
        "  across a pause after the last check": f"{counts.double_across_pause:,}",
        "  across a step of the database's clock": f"{counts.double_across_clock_step:,}",
        "refresh tokens lost": f"{sum(outcome.losses.values()):,}",
    }
    flat |= {f"  {name}": f"{count:,}" for name, count in sorted(outcome.losses.items())}
    flat["declared lost, brought back later"] = f"{counts.held_by_a_stopped_process:,}"
    flat["revocations noticed"] = f"{counts.revocations_noticed:,}"
    flat["working tokens that RD Station refused"] = f"{counts.false_refusals_believed:,}"
    flat["refusals lifted later"] = f"{counts.false_refusals_lifted:,}"
    flat["tokens taken by callers, all good"] = f"{counts.served:,}"
    flat["faults injected"] = f"{sum(outcome.faults.values()):,}"
    flat |= {f"  {name}": f"{count:,}" for name, count in sorted(outcome.faults.items())}
    flat["violations"] = "0" if outcome.violation is None else "1"
    flat["wall time"] = f"{outcome.seconds:,.0f} s"
    return flat


def _run(outcome: Outcome) -> dict[str, Any]:
    plan, violation = outcome.plan, outcome.violation
    return {
        "seed": plan.seed,
        "rotating": plan.rotating,
        "accounts": plan.accounts,
        "days": plan.days,
        **vars(outcome.counts),
        "calls": outcome.calls,
        "losses": dict(outcome.losses),
        "faults": dict(outcome.faults),
        "people": dict(outcome.people),
        "digest": outcome.digest,
        "seconds": round(outcome.seconds, 1),
        "violation": None
        if violation is None
        else {
            "rule": violation.rule,
            "what": violation.what,
            "account": violation.account,
            "at_s": violation.at,
            "trail": violation.trail,
            "command": plan.command,
        },
    }
