"""The report of a flight: as a page, as the mail, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response
from fastapi.responses import HTMLResponse

from lab.flights.report import subject
from lab.flights.report_mail import mail_text, report_mail
from lab.flights.report_text import TITLES, one_line
from lab.flights.report_views import report_view
from lab.flights.verdict import HEADLINES, Outcome, Section
from lab.services.report import report_flight
from web.deps import LabDep, PagesDep, SessionDep
from web.times import job_url

router = APIRouter()

Number = Annotated[int, Path(ge=1, lt=1 << 31)]

SIGNS: Final = {
    Outcome.PERFECT: "pass", Outcome.TOLERABLE: "pass", Outcome.REGRESSIONS: "fail", Outcome.FAILURES: "broken",
    Outcome.UNJUDGED: "skipped",
}  # fmt: skip
SECTION_SIGNS: Final = {
    Section.BLOCKING: "fail", Section.INTERMITTENT: "skipped", Section.ALLOWABLE: "skipped",
    Section.NONBLOCKING: "pending", Section.UNJUDGED: "fail",
}  # fmt: skip


@router.get("/flights/{flight}/report", response_class=HTMLResponse, include_in_schema=False)
def show_report(flight: Number, lab: LabDep, session: SessionDep, pages: PagesDep) -> HTMLResponse:
    """What the mail says, with links."""
    report = report_flight(session, lab, flight)
    values = {
        "event": 0,
        "report": report,
        "title": one_line(subject(report)),
        "headline": HEADLINES[report.outcome],
        "sign": SIGNS[report.outcome],
        "sections": [
            (" ".join(title), SECTION_SIGNS[section], report.of(section))
            for section, title in TITLES.items()
            if report.of(section)
        ],
        "job_url": job_url,
    }
    return pages.render("flights/report.html", values)


@router.get("/flights/{flight}/report.eml", include_in_schema=False)
def download_report(flight: Number, lab: LabDep, session: SessionDep) -> Response:
    """The mail as a file."""
    report = report_flight(session, lab, flight)
    mail = report_mail(report, sender=lab.mail.sender, to=lab.mail.to[0] if lab.mail.to else lab.mail.sender)
    headers = {"Content-Disposition": f'attachment; filename="flight-{flight}.eml"'}
    return Response(mail_text(mail), media_type="message/rfc822", headers=headers)


@router.get("/api/v1/flights/{flight}/report")
def api_report(flight: Number, lab: LabDep, session: SessionDep) -> dict[str, Any]:
    """The report of a flight: failures by section, versions, since when, and who touched what."""
    return report_view(report_flight(session, lab, flight))
