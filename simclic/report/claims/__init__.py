"""What the paper says it found or predicts, sentence by sentence: judged on its printed numbers and on those run here."""

from collections.abc import Iterable
from dataclasses import dataclass

from simclic.experiment.exhibit import BEYOND
from simclic.report.cell_keys import Cells
from simclic.report.claims import ablations, strengths, table2
from simclic.report.claims.verdicts import Claim, Judgement, Verdict, name_exhibits

__all__ = ["CLAIMS", "Claim", "Judged", "Judgement", "Verdict", "judge_claims"]

CLAIMS: tuple[Claim, ...] = (*table2.CLAIMS, *strengths.CLAIMS, *ablations.CLAIMS)  # in the order of the paper


@dataclass(frozen=True)
class Judged:
    """A claim and what two sets of numbers say of it: those that the paper prints, and those that were run here."""

    claim: Claim
    printed: Judgement
    ours: Judgement


def judge_claims(printed: Cells, ours: Cells, claims: Iterable[Claim] = CLAIMS) -> list[Judged]:
    """Return every claim with both judgements. printed, ours: see simclic.report.cell_keys."""
    return [Judged(claim, _judge_printed(claim, printed), claim.judge_cells(ours, printed)) for claim in claims]


def _judge_printed(claim: Claim, printed: Cells) -> Judgement:
    judgement = claim.judge_cells(printed, printed)
    if judgement.verdict == "not run" and claim.exhibits[0].startswith(("figure", BEYOND)):
        return Judgement("not printed", (f"the paper prints no numbers for {name_exhibits(claim.exhibits)}",))
    return judgement
