"""The console in a real browser over the whole local system: what a person sees, and what each action leaves behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from chalicelib.postern.contract.deliveries import new_event_id
from tests.acceptance import browser as browsers
from tests.acceptance.conftest import Run
from tests.acceptance.test_api import ask
from tests.providers_stand_in import HOOK, Providers
from tests.support import eventually, with_the_example

SOURCES = """
[github]
provider = "github"
[stripe]
provider = "stripe"
[shopify]
provider = "shopify"
[slack]
provider = "slack"
[hmac]
provider = "hmac"
header = "X-Signature"
algorithm = "sha256"
encoding = "hex"
[late]
provider = "stripe"
quarantine = true
"""

PAGES = ["overview", "events", "issues", "dead-letters", "replays", "rejected", "duplicates", "sources", "drift"]
PAGES += ["ledger", "storage", "missed"]


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with Providers().running() as made:
        yield made


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory, providers: Providers) -> Iterator[Run]:
    """A run that a storm has gone over: some events are dead by now, some deliveries refused or repetitions."""
    folder = tmp_path_factory.mktemp("console")
    code = f'[code]\nprovider = "github"\nreconcile = {{ url = "{providers.url}{HOOK}" }}\n'
    (folder / "sources.toml").write_text(SOURCES + code)
    (folder / "state").mkdir()
    (folder / "state" / "secrets.json").write_text(json.dumps({"code.api_token": providers.token}))
    running = Run(folder / "state", SOURCES_FILE=str(folder / "sources.toml"))
    try:
        running.wait_until_ready()
        stormed = running.postern("send", "--storm", "150")
        assert stormed.returncode == 0, stormed.stderr
        for _ in range(2):
            running.postern("send", "github", "push", "--body", str(_written(folder / "body", b'{"ref": "main"}')))
        # Of these a storm may have none, by chance.
        running.postern("send", "github", "push", "--body", str(_written(folder / "broken", b"{")))
        eventually(lambda: running.query("SELECT 1 FROM postern.rejected"), timeout=40)
        eventually(lambda: running.query("SELECT 1 FROM postern.events WHERE status = 'dead' OFFSET 1"), timeout=40)
        yield running
    finally:
        running.stop()


def _written(path: Any, content: bytes) -> Any:
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(stormy: Run, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the console as a person does; fails the test for any error of the page's own."""
    wrong: list[str] = []
    pages: list[Page] = []

    def open_one(where: str = "overview", *, token: str | None = None, **settings: Any) -> Page:
        page = browsers.page_of(chromium, wrong, **settings)
        pages.append(page)
        page.goto(f"{address(stormy)}#token={token or stormy.token}")
        expect(page.get_by_role("navigation", name="Pages")).to_be_attached()
        go(page, where)
        return page

    yield open_one
    for page in pages:
        page.context.close()
    assert wrong == []


def address(run: Run) -> str:
    return f"http://127.0.0.1:{run.port}/console"


def go(page: Page, where: str) -> None:
    page.evaluate("where => { location.hash = '#/' + where }", where)
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def one(run: Run, sql: str, *values: Any) -> Any:
    return run.query(sql, *values)[0][0]


def confirm(page: Page, button: str, *, typed: str | None = None) -> None:
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    if typed is not None:
        expect(dialog.get_by_role("button", name=button)).to_be_disabled()
        dialog.get_by_role("textbox").fill(typed)
    dialog.get_by_role("button", name=button).click()


# --- Coming in


def test_the_ready_link_signs_in_and_its_token_does_not_stay(stormy: Run, chromium: Browser) -> None:
    assert f"{address(stormy)}#token=" in stormy.text
    page = browsers.page_of(chromium, [])
    page.goto(re.findall(r"http\S+#token=\S+", stormy.text)[0])
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert "token" not in page.url
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert stormy.token not in page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    page.reload()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.evaluate("location.hash = 'token=' + 'postern_x'")  # another link, in the same tab
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert "token" not in page.url
    page.context.close()


def test_a_page_begins_with_its_heading_wherever_one_comes_from(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for where in ("sources", "overview", "drift", "sources", "rejected", "overview", "ledger", "sources", "overview"):
        go(page, where)
        before = page.evaluate("document.querySelector('main h1').previousElementSibling?.outerHTML")
        assert before is None, (where, before)


def test_a_second_tab_that_signs_in_anew_leaves_the_first_able_to_act(
    stormy: Run, open_page: Callable[..., Page]
) -> None:
    page = open_page("issues")
    page.locator("tbody tr").first.click()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_visible()
    [before] = page.context.cookies()
    other = page.context.new_page()
    other.goto(address(stormy))
    post = """async token => { await fetch("api/session", {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({token})}) }"""

    def signs_in_anew() -> bool:
        # One session after the other, with nothing between them: the first tab asks by itself, and would be signed out.
        other.evaluate(post, stormy.token)
        [after] = page.context.cookies()
        return bool(before["value"] != after["value"])  # two of one second are the same

    eventually(signs_in_anew)
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("h1")).to_contain_text("acknowledged")
    page.get_by_role("button", name="Reopen").click()
    expect(page.locator("h1")).to_contain_text("open")


def test_who_has_no_token_sees_a_login_and_nothing_else(stormy: Run, chromium: Browser) -> None:
    page = browsers.page_of(chromium, [])
    page.goto(f"{address(stormy)}#/events")
    page.get_by_label("Token").fill("postern_" + "A" * 49)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("No such token")
    page.get_by_label("Token").fill(stormy.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()
    page.context.close()


def test_a_session_that_ends_is_said_and_the_page_comes_back(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("issues")
    page.context.clear_cookies()
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("session is over")
    page.get_by_label("Token").fill(stormy.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Issues")).to_be_visible()


def test_a_token_that_may_look_changes_nothing(stormy: Run, open_page: Callable[..., Page]) -> None:
    token = stormy.postern("tokens", "make", "looker").stdout.strip()
    eventually(lambda: "looker" in stormy.postern("tokens", "list").stdout)
    page = open_page("events", token=token)
    page.locator("tbody tr").first.click()
    expect(page.get_by_role("button", name="Process again")).to_be_disabled()
    expect(page.get_by_role("button", name="Dry run")).to_be_disabled()
    go(page, "dead-letters")
    expect(page.get_by_text("Your token may look at rows only")).to_be_visible()


# --- Looking


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_page_is_fit_for_everybody(stormy: Run, open_page: Callable[..., Page], theme: str) -> None:
    page = open_page(color_scheme=theme)
    event = one(stormy, "SELECT id::text FROM postern.events WHERE status = 'dead' ORDER BY id LIMIT 1")
    issue = one(stormy, "SELECT id FROM postern.issues LIMIT 1")
    duplicate = one(stormy, "SELECT id::text FROM postern.duplicates LIMIT 1")
    refused = one(stormy, "SELECT id::text FROM postern.rejected LIMIT 1")
    details = [f"events/{event}", f"issues/{issue}", f"duplicates/{duplicate}", f"rejected/{refused}"]
    for where in [*PAGES, *details]:
        go(page, where)
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
        assert grave == [], where


def test_each_page_fits_on_a_phone(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.set_viewport_size({"width": 375, "height": 720})
    for where in PAGES:
        go(page, where)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, where
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Issues", exact=True).click()
    expect(page.get_by_role("heading", name="Issues")).to_be_visible()


def test_the_overview_says_what_needs_a_person(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page()
    dead = one(stormy, "SELECT count(*) FROM postern.events WHERE status = 'dead'")
    needs = page.locator(".needs li")
    expect(needs.filter(has_text="given up")).to_contain_text(str(dead))
    needs.filter(has_text="given up").get_by_role("link").click()
    expect(page.get_by_role("table", name="Events").locator("tbody tr")).to_have_count(dead)


def test_a_search_stays_in_the_address(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("events")
    page.get_by_role("combobox", name="Search events").fill("source:stripe status:processed")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr").first).to_contain_text("stripe")
    expected = one(stormy, "SELECT count(*) FROM postern.events WHERE source = 'stripe'")
    expect(page.locator("tbody tr")).to_have_count(expected)
    page.reload()
    expect(page.get_by_role("combobox")).to_have_value("source:stripe status:processed")
    expect(page.locator("tbody tr")).to_have_count(expected)
    page.get_by_role("button", name="Without source:stripe").click()
    expect(page.locator("tbody tr").filter(has_text="github").first).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(expected)


def test_each_word_of_a_search_means_what_it_says(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("events")
    for asked, sql in (
        ("type:invoice.*", "type LIKE 'invoice.%%'"),
        ('payload:{"ref": "main"}', """payload @> '{"ref": "main"}'"""),
        ("error:repository", "error LIKE '%%repository%%'"),
        ("attempts:3 since:1h", "attempts >= 3"),
    ):
        page.get_by_role("combobox").fill(asked)
        page.keyboard.press("Enter")
        expect(page.locator(".chip").first).to_contain_text(asked.split(":")[0])
        number = min(50, one(stormy, f"SELECT count(*) FROM postern.events WHERE {sql}"))
        if number:
            expect(page.locator("tbody tr")).to_have_count(number)
        else:
            expect(page.get_by_text("Nothing matches")).to_be_visible()


def test_what_a_search_cannot_mean_is_said(open_page: Callable[..., Page]) -> None:
    page = open_page("events")
    page.get_by_role("combobox").fill("status:gone since:yesterday payload:{x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_count(3)


def test_the_field_completes_what_is_typed(open_page: Callable[..., Page]) -> None:
    page = open_page("events")
    page.keyboard.press("/")
    page.keyboard.type("sta")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("de")
    expect(page.get_by_role("option", name="status:dead")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_text(re.compile("status:dead"))


def test_the_keys_are_enough(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.keyboard.press("g")
    page.keyboard.press("e")
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    expect(page.locator("tbody tr").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("tbody tr").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("x")
    expect(page.get_by_text("1 chosen")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).not_to_be_visible()
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_a_stretch_of_time_is_chosen_by_keys(open_page: Callable[..., Page]) -> None:
    page = open_page()
    chart = page.get_by_role("application", name=re.compile("^Deliveries: "))
    chart.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator(".columns .chosen")).to_have_count(3)
    expect(page.locator(".axis")).to_contain_text(re.compile(r"UTC to .*: [\d,]+ deliver"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    since, until = re.findall(r"(?:since|until)%3A(\d{4}-\d\d-\d\dT\d\d)", page.url)
    assert datetime.fromisoformat(until) - datetime.fromisoformat(since) == timedelta(hours=3)


def test_new_events_appear_by_themselves_and_wait_while_one_reads(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("events?q=source%3Ahmac")
    page.get_by_role("checkbox", name="Live").check()
    rows = page.locator("tbody tr")
    before = rows.count()
    stormy.postern("send", "hmac")
    expect(rows).to_have_count(before + 1)
    rows.first.focus()
    expect(page.get_by_text("paused while you read")).to_be_visible()
    stormy.postern("send", "hmac")
    page.get_by_role("checkbox", name="Live").focus()
    expect(rows).to_have_count(before + 2)


MEANT: list[tuple[str, dict[str, Any], int]] = [
    ("source:a status:failed,dead", {"source": "a", "status": ["failed", "dead"]}, 0),
    ("evt_1", {"key": "evt_1"}, 0),
    ('id:"a \\"b\\""', {"key": 'a "b"'}, 0),
    ('payload:{"a": "} b"} type:x', {"contains": '{"a": "} b"}', "type": "x"}, 0),
    ('payload:"paid"', {"contains": '"paid"'}, 0),
    ("payload:12345678901234567890", {"contains": "12345678901234567890"}, 0),
    ("source:a source:b", {"source": "a"}, 1),
    ("since: attempts:many status:gone", {}, 3),
    ("constructor:x", {"key": "constructor:x"}, 0),
]


def test_words_are_read_as_they_are_meant(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for typed, filters, problems in MEANT:
        found = page.evaluate(
            """async typed => {
              const module = document.querySelector("script").src.replace("main.js", "search.js");
              return (await import(module)).filtersOf(typed);
            }""",
            typed,
        )
        assert (found["filters"], len(found["problems"])) == (filters, problems), typed


def test_an_address_that_is_none_breaks_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for where in ("constructor", "events/%", "overview?span=constructor", "events?q=%", "issues/..%2Fstatus"):
        go(page, where)
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="Issues").click()
        expect(page.get_by_role("heading", name="Issues")).to_be_visible()


# --- Acting, down to the row


def test_an_event_tells_its_story_and_is_processed_again(stormy: Run, open_page: Callable[..., Page]) -> None:
    id = one(stormy, "SELECT id::text FROM postern.events WHERE source = 'stripe' AND attempts = 1 LIMIT 1")
    page = open_page(f"events/{id}")
    expect(page.locator(".timeline")).to_contain_text(re.compile(r"Received.*Queued.*\d+ ms later", re.DOTALL))
    expect(page.locator(".timeline")).to_contain_text("Try 1, first try")
    page.get_by_role("button", name="Process again").click()
    confirm(page, "Process again")
    expect(page.locator("h1")).to_contain_text("done")
    assert one(stormy, "SELECT attempts FROM postern.events WHERE id = %s", id) == 2
    go(page, f"events/{id}")
    expect(page.locator(".timeline .aside").last).to_contain_text("Try 2, a replay")


@with_the_example
def test_a_dry_run_shows_the_rows_that_would_change(stormy: Run, open_page: Callable[..., Page]) -> None:
    sent = stormy.postern("send", "github", "push").stdout
    id = json.loads(sent.split("  ")[1])["id"]
    before = one(stormy, "SELECT sum(pushes) FROM public.github_pushes")
    page = open_page(f"events/{id}")
    page.get_by_role("button", name="Dry run").click()
    outcome = page.get_by_role("region", name="Dry run")
    expect(outcome).to_contain_text("github_pushes")
    expect(outcome).to_contain_text("pushes:")
    assert one(stormy, "SELECT sum(pushes) FROM public.github_pushes") == before


def test_an_issue_is_acknowledged_and_resolved(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("issues")
    page.locator("tbody tr").first.click()
    state = "SELECT state FROM postern.issues WHERE error_class LIKE '%%KeyError%%'"
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("h1")).to_contain_text("acknowledged")
    assert one(stormy, state) == "acknowledged"
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator("h1")).to_contain_text("resolved")
    assert one(stormy, state) == "resolved"
    page.get_by_role("button", name="Reopen").click()
    expect(page.locator("h1")).to_contain_text("open")


def test_all_that_match_are_replayed_once_their_number_is_typed(stormy: Run, open_page: Callable[..., Page]) -> None:
    number = one(stormy, "SELECT count(*) FROM postern.events WHERE source = 'slack' AND status = 'processed'")
    page = open_page("events?q=source%3Aslack%20status%3Aprocessed")
    page.get_by_role("link", name="Process all that match again").click()
    plan = page.get_by_role("region", name="Plan")
    expect(plan).to_contain_text(f"{number} event")
    plan.get_by_label("Rate").select_option("100 a second")
    plan.get_by_role("button", name="Process them again").click()
    confirm(page, "Process again", typed=str(number) if number > 1 else None)
    expect(page.locator("h1")).to_contain_text("done", timeout=20_000)
    assert one(stormy, "SELECT min(attempts) FROM postern.events WHERE source = 'slack' AND status = 'processed'") == 2


def test_a_replay_of_somebody_elses_rests_until_it_is_told_to_go_on(
    stormy: Run, open_page: Callable[..., Page]
) -> None:
    id = one(stormy, "SELECT id::text FROM postern.events WHERE source = 'stripe' AND attempts = 1 LIMIT 1")
    began = ask(stormy, "POST", "/api/replays", {"ids": [id]})[1]["replay"]["id"]
    page = open_page(f"replays/{began}")
    expect(page.get_by_text("It rests")).to_be_visible()
    looker = open_page(f"replays/{began}", token=stormy.postern("tokens", "make", "watcher").stdout.strip())
    expect(looker.locator("h1")).to_contain_text("running")
    expect(looker.get_by_role("button", name="Go on")).to_be_disabled()
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("h1")).to_contain_text("done")
    expect(looker.locator("h1")).to_contain_text("done")


def test_a_replay_that_was_told_to_rest_rests_when_one_comes_back_to_it(
    stormy: Run, open_page: Callable[..., Page]
) -> None:
    page = open_page("replays?q=source%3Agithub")
    plan = page.get_by_role("region", name="Plan")
    plan.get_by_label("Rate").select_option("1 a second")
    plan.get_by_role("button", name="Process them again").click()
    number = one(stormy, "SELECT count(*) FROM postern.events WHERE source = 'github'")
    confirm(page, "Process again", typed=str(number))
    page.get_by_role("button", name="Rest").click()
    expect(page.get_by_text("It rests")).to_be_visible()
    began = page.url.rpartition("/")[2]
    go(page, "overview")
    go(page, f"replays/{began}")
    expect(page.get_by_text("It rests")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    confirm(page, "Cancel it")
    expect(page.locator("h1")).to_contain_text("cancelled")


def test_a_source_says_how_it_is_set_up(open_page: Callable[..., Page]) -> None:
    page = open_page("sources")
    page.get_by_role("row", name="github").get_by_role("button", name="Set up").click()
    steps = page.get_by_role("region", name="Set up github")
    expect(steps).to_contain_text("/webhooks/github")
    expect(steps).to_contain_text("postern send github")


def test_dead_letters_move_back_and_are_deleted(stormy: Run, open_page: Callable[..., Page]) -> None:
    page = open_page("dead-letters")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("github")
    row.get_by_role("button", name="Move back").click()
    expect(page.locator("h1")).to_contain_text("Redrive")
    expect(page.locator("h1")).to_contain_text("done", timeout=20_000)
    assert one(stormy, "SELECT sum(moved) FROM postern.replays WHERE kind = 'redrive'") == 1
    go(page, "dead-letters")
    waiting = re.findall(r"(\d+) letter", page.locator("main").inner_text())[0]
    page.get_by_role("button", name="Delete all").click()
    confirm(page, "Delete them", typed=waiting)
    expect(page.get_by_role("status")).to_contain_text("deleted")


def test_a_repetition_is_let_through(stormy: Run, open_page: Callable[..., Page]) -> None:
    id = one(stormy, "SELECT id::text FROM postern.duplicates WHERE accepted_at IS NULL LIMIT 1")
    page = open_page(f"duplicates/{id}")
    page.get_by_role("button", name="Let it through").click()
    confirm(page, "Let it through")
    eventually(lambda: stormy.query("SELECT 1 FROM postern.events WHERE id = %s", id))


def test_a_refused_delivery_is_explained_and_let_through_at_a_persons_word(
    stormy: Run, open_page: Callable[..., Page]
) -> None:
    late(stormy, b'{"id": "evt_late", "type": "charge.succeeded"}')
    id = one(stormy, "SELECT id::text FROM postern.rejected WHERE reason = 'timestamp_stale'")
    page = open_page(f"rejected/{id}")
    why = page.get_by_role("region", name="Why")
    expect(why).to_contain_text("clock")
    why.get_by_role("button", name="Verify again").click()
    expect(page.get_by_role("status")).to_contain_text("Still refused: timestamp_stale")
    why.get_by_role("button", name="though too old").click()
    confirm(page, "Let it through")
    expect(page.locator("dl.facts")).to_contain_text("Let through as")
    expect(why.get_by_role("button")).to_have_count(0)
    eventually(lambda: stormy.query("SELECT 1 FROM postern.events WHERE id = %s::uuid AND status = 'processed'", id))


def test_all_that_was_refused_is_verified_again(stormy: Run, open_page: Callable[..., Page]) -> None:
    late(stormy, b'{"id": "evt_later", "type": "charge.succeeded"}')
    pending = one(stormy, "SELECT count(*) FROM postern.rejected WHERE source = 'late' AND event_id IS NULL")
    page = open_page("rejected?source=late")
    page.get_by_role("button", name="Verify all again").click()
    expect(page.get_by_role("status").filter(has_text="let through.")).to_contain_text(f"0 of {pending} let through.")


def test_what_ends_after_one_has_gone_on_leaves_the_page_as_it_is(stormy: Run, open_page: Callable[..., Page]) -> None:
    late(stormy, b'{"id": "evt_last", "type": "charge.succeeded"}')
    page = open_page("rejected")
    page.get_by_role("button", name="Verify all again").click()
    page.get_by_role("link", name="All that are kept").click()
    expect(page.get_by_role("status").filter(has_text="let through.")).to_be_visible()
    expect(page.get_by_role("table", name="Refused deliveries").locator("tbody tr").first).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def late(run: Run, body: bytes) -> None:
    """Sends what was signed an hour ago, and waits until it is kept."""
    at = int(time.time()) - 3600
    signed = hmac.digest(run.secret("late").encode(), f"{at}.".encode() + body, hashlib.sha256).hex()
    kept = one(run, "SELECT count(*) FROM postern.rejected")
    assert run.post("/webhooks/late", body, {"Stripe-Signature": f"t={at},v1={signed}"})[0] == 401
    eventually(lambda: one(run, "SELECT count(*) FROM postern.rejected") > kept)


def test_a_change_of_payloads_is_accepted(stormy: Run, open_page: Callable[..., Page]) -> None:
    stormy.query(
        "INSERT INTO postern.drift (source, type, kind, path, was, became, event_id)"
        " VALUES ('stripe', 'invoice.paid', 'retyped', '.amount', '{number}', '{string}', %s)",
        str(uuid.uuid4()),
    )
    page = open_page("drift")
    page.locator("tbody tr").filter(has_text=".amount").get_by_role("button", name="Accept").click()
    eventually(lambda: stormy.query("SELECT 1 FROM postern.drift WHERE accepted_at IS NOT NULL"))
    expect(page.get_by_text("No changes")).to_be_visible()


def test_what_is_missing_is_written_off_with_a_note(stormy: Run, open_page: Callable[..., Page]) -> None:
    stormy.query(
        "INSERT INTO postern.ledger (source, minute, accepted, stored, duplicates)"
        " VALUES ('stripe', date_trunc('minute', now() - interval '2 hours'), 3000, 1, 0)"
    )
    stormy.query("UPDATE postern.bookkeeping SET ledger_begins = now() - interval '1 day'")
    page = open_page("ledger")
    eventually(lambda: stormy.query("SELECT 1 FROM postern.bookkeeping WHERE missing = 2999"))
    page.keyboard.press("r")
    page.get_by_role("button", name="Write off").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("Note").fill("a test's")
    dialog.get_by_role("button", name="Write off").click()
    eventually(lambda: stormy.query("SELECT 1 FROM postern.ledger WHERE written_off = 2999 AND note = 'a test''s'"))


# --- What comes from strangers, and what goes wrong


def hostile(run: Run, body: bytes, **columns: Any) -> str:
    """A stored event with these bytes, as if they had come."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    id = str(new_event_id(at))
    row = {"type": "hostile", "dedup_key": id, "headers": {"x": "<b>"}, **columns}
    run.query(
        "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, error, received_at, headers, body)"
        " VALUES (%s, 'hmac', %s, %s, 'dead', 3, %s, %s, %s, %s)",
        id, row["type"], row["dedup_key"], row.get("error", "e"), at, json.dumps(row["headers"]), body,
    )  # fmt: skip
    return id


HTML = '<img src=x onerror="window.bad=1"><script>window.bad=1</script>'


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (json.dumps({"html": HTML, "link": "javascript:window.bad=1"}).encode(), "onerror"),
        (b'{"big": 90071992547409931234567890, "exact": 1.10}', "90071992547409931234567890"),
        (b"[" * 5_000 + b"]" * 5_000, "["),
        (json.dumps({f"key{n}": n for n in range(10_000)}).encode(), "key0"),
        (b"\xff\xfe\x00broken", "ff fe 00 62"),
        ('{"name": "\u202egnp.exe"}'.encode(), "‹U+202E›gnp.exe"),
        (b'{"cut": "off', '"cut"'),
        (b"x" * 5_000_000, "xxxx"),
        (b"", ""),
    ],
    ids=["html", "numbers", "deep", "wide", "bytes", "direction", "cut", "large", "empty"],
)
def test_a_hostile_payload_is_text(stormy: Run, open_page: Callable[..., Page], body: bytes, shown: str) -> None:
    id = hostile(stormy, body, type=HTML, dedup_key=f"{HTML}{uuid.uuid4()}", error=HTML, headers={"x-<b>": HTML})
    page = open_page(f"events/{id}")
    payload = page.get_by_role("region", name="Body")
    expect(payload.locator("pre")).to_contain_text(shown)
    page.get_by_role("button", name="Keys").click()  # it answers
    page.keyboard.press("Escape")
    go(page, "events?q=type%3A%3Cimg*")
    expect(page.locator("tbody tr").first).to_contain_text("<img")
    assert page.evaluate("window.bad") is None
    stormy.query("DELETE FROM postern.events WHERE id = %s", id)


def test_what_was_known_stays_while_postern_is_away_and_it_comes_back(open_page: Callable[..., Page]) -> None:
    page = open_page("issues")
    expect(page.locator("tbody tr")).to_have_count(1)

    def away(route: Route) -> None:
        error = {"error": "database_unavailable", "message": "The database does not answer now.", "details": {}}
        route.fulfill(status=503, json=error)

    page.route("**/api/issues*", away)
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("Not up to date")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.unroute("**/api/issues*")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_ids_that_are_none_are_said(open_page: Callable[..., Page]) -> None:
    page = open_page(f"events/{uuid.uuid4()}")
    expect(page.get_by_text("Nothing is stored under this id")).to_be_visible()
    go(page, "events/nonsense")
    expect(page.get_by_role("alert")).to_contain_text("Not a valid UUID")


# --- What never arrived


def test_what_a_provider_sent_and_did_not_arrive_is_seen_and_fetched(
    stormy: Run, providers: Providers, open_page: Callable[..., Page]
) -> None:
    guid = str(uuid.uuid4())
    body = json.dumps({"n": guid}, separators=(",", ":")).encode()
    providers.deliver(guid, body, datetime.now(UTC) - timedelta(hours=1), stormy.secret("code"), event="star")
    page = open_page("missed")
    page.get_by_label("Source").fill("code")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("code looked")
    expect(page.get_by_role("row").filter(has_text=guid)).to_contain_text("missing")
    go(page, "missed")
    page.get_by_label("Source").fill("code")
    page.get_by_label("Since").select_option("2 hours")
    page.get_by_role("button", name="Fetch what is missing").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("code done")
    expect(page.get_by_role("row").filter(has_text=guid)).to_contain_text("fetched")
    eventually(lambda: stormy.query("SELECT 1 FROM postern.events WHERE dedup_key = %s", guid))
    page.get_by_role("row").filter(has_text=guid).get_by_role("link").last.click()
    expect(page.get_by_text("Fetched from its provider’s history")).to_be_visible()


def test_a_source_that_cannot_be_compared_is_said(open_page: Callable[..., Page]) -> None:
    page = open_page("missed")
    page.get_by_label("Source").fill("nobody")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_text("There is no source 'nobody'.")).to_be_visible()
