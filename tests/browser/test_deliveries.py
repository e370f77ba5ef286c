"""Deliveries: found by filters and search, read, sent again, copied as a command, exported, and followed live."""

import csv
import io
import json
import re
import subprocess
from urllib.parse import parse_qsl, urlsplit

import openpyxl
import pytest
from conftest import copied, fact
from playwright.sync_api import expect
from world import LOADED, eventually


def rows(page):
    return page.locator("#deliveries tbody tr")


def total(page):
    text = page.locator(".pager p").inner_text()
    return int(re.search(r"of ([\d,]+)", text).group(1).replace(",", ""))


def asked(page):
    return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))


def test_filters_are_the_address_and_the_address_is_the_filters(world, browse, size):
    page = browse(world.cookies["viewer"], size)
    page.goto(f"{world.acme.home}/deliveries")
    page.get_by_role("combobox", name="Status", exact=True).select_option("failed")
    page.get_by_role("combobox", name="Endpoint", exact=True).select_option(world.names["billing"])
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(rows(page)).to_have_count(6)
    assert asked(page) == {"status": "failed", "endpoint_id": world.names["billing"]}, "what is empty is left out"
    # A colleague who is sent the address sees the same.
    colleague = browse(world.cookies["developer"], size)
    colleague.goto(page.url)
    expect(rows(colleague)).to_have_count(6)
    expect(colleague.get_by_role("combobox", name="Status", exact=True)).to_have_value("failed")
    assert set(rows(colleague).locator("td[data-label=Status]").all_inner_texts()) == {"Failed"}
    page.get_by_role("link", name="Clear filters").click()
    expect(rows(page)).to_have_count(50)
    assert asked(page) == {}
    page.go_back()
    expect(rows(page)).to_have_count(6)


@pytest.mark.parametrize("filters, matches", [
    ({"status": "retrying"}, lambda world: world.acme.count(status="retrying")),
    ({"response_status": "5xx"}, lambda world: 15),
    ({"response_status": "none"}, lambda world: world.acme.count(response_status="none")),
    ({"event_type": "invoice.paid"}, lambda world: LOADED * 15 // 100),
    ({"min_attempt": "2"}, lambda world: world.acme.count(min_attempt=2)),
    ({"from": "2026-01-01", "to": "2026-01-02"}, lambda world: 0),
    ({"q": "BILLING"}, lambda world: 6),
    ({"q": "Monterrey", "status": "success"}, lambda world: LOADED),
])
def test_each_filter_finds_what_the_api_finds(world, browse, filters, matches):
    page = browse(world.cookies["owner"])
    page.goto(f"{world.acme.home}/deliveries")
    page.locator("summary", has_text="More filters").click()
    for name, value in filters.items():
        field = page.locator(f"#f-{name}")
        if field.evaluate("(field) => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.get_by_role("button", name="Filter", exact=True).click()
    page.wait_for_url("**?*")
    assert asked(page) == filters
    expected = matches(world)
    if expected:
        # Counts of the first 15 % may be off by what one batch holds.
        assert abs(total(page) - expected) <= (1000 if filters.get("event_type") else 0)
    else:
        expect(page.get_by_text("No delivery matches")).to_be_visible()
    # Filters that are out of sight otherwise are shown where they are used.
    for name in filters:
        expect(page.locator(f"#f-{name}")).to_be_visible()


def test_a_search_is_sent_with_enter(world, browse, size):
    page = browse(world.cookies["owner"], size)
    page.goto(f"{world.acme.home}/deliveries")
    search = page.get_by_role("searchbox", name="Search")
    search.fill(world.names["success"])
    search.press("Enter")
    expect(rows(page)).to_have_count(1)
    assert asked(page) == {"q": world.names["success"]}


def test_pages_of_a_long_list_keep_the_filter(world, browse, size):
    page = browse(world.cookies["owner"], size)
    page.goto(f"{world.acme.home}/deliveries?status=success")
    expect(page.locator(".pager p")).to_contain_text(f"1–50 of {LOADED:,}")
    first = rows(page).first.inner_text()
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".pager p")).to_contain_text(f"51–100 of {LOADED:,}")
    assert asked(page) == {"status": "success", "page": "2"} and rows(page).first.inner_text() != first
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(".pager p")).to_contain_text(f"1–50 of {LOADED:,}")
    page.goto(f"{world.acme.home}/deliveries?status=failed&page=99")
    expect(page.get_by_text("Nothing is on this page")).to_be_visible()
    page.get_by_role("link", name="To the first page").click()
    assert asked(page) == {"status": "failed"}


def test_a_filter_that_cannot_be_read_says_what_it_takes(world, browse, size):
    page = browse(world.cookies["owner"], size)
    assert page.goto(f"{world.acme.home}/deliveries?from=yesterday&status=failed").status == 422
    expect(page.locator("#f-from-error")).to_be_visible()
    expect(page.locator("#f-from")).to_have_value("yesterday")
    expect(page.get_by_role("combobox", name="Status", exact=True)).to_have_value("failed")


def test_a_delivery_shows_its_body_and_all_attempts(world, browse, size):
    page = browse(world.cookies["viewer"], size)
    page.goto(f"{world.acme.home}/deliveries?status=failed&endpoint_id={world.names['billing']}")
    rows(page).first.get_by_role("link").first.click()
    expect(fact(page, "Status")).to_have_text("Failed")
    expect(page.locator("#delivery .notice")).to_contain_text("Its own log")
    attempts = page.locator("#delivery table").first.locator("tbody tr")
    expect(attempts).to_have_count(2)
    expect(attempts.first).to_contain_text("500")
    attempts.first.locator("summary").click()
    expect(attempts.first.locator("pre")).to_contain_text("received")
    id = urlsplit(page.url).path.rsplit("/", 1)[1]
    known = world.acme.call("GET", f"/v1/webhooks/deliveries/{id}").data["attributes"]
    body = page.locator("section.panel", has=page.get_by_role("heading", name="Request body"))
    assert known["request_body"] in body.locator("pre").first.inner_text()
    headers = page.locator("section.panel", has=page.get_by_role("heading", name="Request headers"))
    expect(headers).to_contain_text("webhook-id")


def test_the_command_to_copy_repeats_the_request(world, browse, fresh, size):
    path = f"/curl-{fresh.id}?a=1&b=[2]"
    fresh.endpoint(world.receiver.url + path)
    note = {"id": "it's", "note": "$(id) `id` %s \\ \"quoted\" ñ 🙂", "more": "line\nbreak"}
    fresh.publish("order.created", note)
    id = fresh.delivery(status="success")
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/deliveries/{id}")
    section = page.locator("section.panel", has=page.get_by_role("heading", name="Copy as curl"))
    section.get_by_role("button", name="Copy").click()
    expect(section.get_by_role("button", name="Copied")).to_be_visible()
    command = copied(page)
    assert command.startswith("curl ")
    came = world.receiver.came[path]
    before = len(came)
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    assert len(came) == before + 1
    assert came[-1][1] == came[0][1] and json.loads(came[0][1])["data"] == note
    assert "signature" not in " ".join(came[-1][0]).lower()


def test_a_delivery_that_failed_is_sent_again_and_followed(world, browse, fresh, size):
    path = f"/again-{fresh.id}"
    world.receiver.answers[path] = (500, b"broken", {})
    fresh.endpoint(world.receiver.url + path)
    fresh.publish()
    id = fresh.delivery(status="failed")
    page = browse(fresh.user("developer"), size)
    page.goto(f"{fresh.home}/deliveries/{id}")
    expect(fact(page, "Status")).to_have_text("Failed")
    world.receiver.answers[path] = (200, b"mended", {})
    page.get_by_role("button", name="Send again").click()
    expect(fact(page, "Status")).to_have_text("Success")
    assert fresh.count(status="success") == 1 and len(world.receiver.came[path]) == 3


def test_the_button_to_send_again_pressed_twice_sends_once(world, browse, fresh):
    path = f"/twice-{fresh.id}"
    fresh.endpoint(world.receiver.url + path)
    fresh.publish()
    id = fresh.delivery(status="success")
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/deliveries/{id}")
    page.get_by_role("button", name="Send again").dblclick()
    expect(fact(page, "Status")).to_have_text("Success")
    eventually(lambda: len(world.receiver.came[path]) >= 2, "the second attempt")
    assert len(world.receiver.came[path]) == 2


def test_a_delivery_that_is_held_says_why(world, browse):
    page = browse(world.cookies["owner"])
    page.goto(f"{world.acme.home}/deliveries/{world.names['pending']}")
    page.get_by_role("link", name="See the endpoint").click()
    expect(fact(page, "Status")).to_have_text("Auto-disabled")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_the_deliveries_that_are_shown_can_be_exported(world, browse, role, size):
    page = browse(world.cookies[role], size)
    page.goto(f"{world.acme.home}/deliveries?status=failed")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    table = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert len(table) == world.acme.count(status="failed") == 10
    assert download.value.suggested_filename.endswith(".csv")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as XLSX").click()
    sheet = openpyxl.load_workbook(io.BytesIO(download.value.path().read_bytes())).active
    assert sheet.max_row == 11


def test_the_whole_history_can_be_exported(world):
    answer = world.server.open(f"{world.acme.home}/deliveries/export?format=csv", world.cookies["owner"]).expect(200)
    assert answer.body.count(b"\n") > LOADED
    assert world.server.open(f"{world.acme.home}/deliveries/export?format=csv").status == 303, "not without signing in"


# The clock of the page is ours in what follows, so that nobody has to wait.

def followed(page, path):
    page.clock.install()
    page.goto(path)
    page.evaluate("window.same = true")


def refreshes(page, seconds=6):
    """Lets time pass: how often the page was fetched again."""
    fetched = []
    page.on("request", lambda request: fetched.append(request.url) if request.resource_type == "fetch" else None)
    page.clock.run_for(seconds * 1000)
    return fetched


def test_a_new_delivery_appears_by_itself(world, browse, fresh, size):
    fresh.endpoint(f"{world.receiver.url}/live", "order.created", "invoice.paid")
    fresh.publish()
    page = browse(fresh.owner, size)
    followed(page, f"{fresh.home}/deliveries")
    expect(rows(page)).to_have_count(1)
    fresh.publish("invoice.paid")
    fresh.delivery(event_type="invoice.paid", status="success")
    page.clock.run_for(6000)
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("invoice.paid")
    assert page.evaluate("window.same"), "without loading the page again"


@pytest.mark.parametrize("path", ["", "/deliveries", "/events"])
def test_the_live_parts_can_be_paused_and_resumed(world, browse, fresh, path):
    fresh.endpoint(f"{world.receiver.url}/live")
    fresh.publish()
    fresh.delivery(status="success")
    page = browse(fresh.owner)
    followed(page, fresh.home + path)
    toggle = page.locator("[data-live-toggle]")
    expect(toggle).to_have_text("Live · Pause")
    assert refreshes(page)
    page.wait_for_load_state("networkidle")
    toggle.click()
    expect(toggle).to_have_text("Paused · Resume")
    assert refreshes(page, 300) == []
    with page.expect_request(lambda request: request.resource_type == "fetch"):
        toggle.click()
    expect(toggle).to_have_text("Live · Pause")


def test_what_somebody_works_with_is_not_taken_away(world, browse, fresh):
    fresh.endpoint(f"{world.receiver.url}/live")
    fresh.publish()
    fresh.delivery(status="success")
    page = browse(fresh.owner)
    followed(page, f"{fresh.home}/deliveries")
    rows(page).first.get_by_role("link").first.focus()
    fresh.publish()
    eventually(lambda: fresh.count(status="success") == 2, "another delivery")
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch") as response:
        page.clock.run_for(6000)
    response.value.finished()
    expect(rows(page)).to_have_count(1)
    assert page.evaluate("document.activeElement.closest('#deliveries') !== null")
    page.get_by_role("searchbox", name="Search").focus()
    page.clock.run_for(60_000)
    expect(rows(page)).to_have_count(2)


def test_what_was_folded_open_stays_open(world, browse, fresh):
    path = f"/open-{fresh.id}"
    world.receiver.answers[path] = (503, b"come back later", {"Retry-After": "3600"})
    fresh.endpoint(world.receiver.url + path)
    fresh.publish()
    id = fresh.delivery(status="retrying")
    page = browse(fresh.owner)
    followed(page, f"{fresh.home}/deliveries/{id}")
    page.locator("#delivery summary", has_text="Show").first.click()
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch") as response:
        page.clock.run_for(4000)
    response.value.finished()
    expect(page.locator("#delivery pre", has_text="come back later").first).to_be_visible()

    # Another attempt comes above it: what was open is still that answer, and not the one that took its place.
    def with_another_attempt(route):
        answer = route.fetch()
        row = "<tr><td>2<td><td><td><td><td><details><summary>Show</summary><pre>another answer</pre></details></tr>"
        route.fulfill(response=answer, body=answer.text().replace("<tbody>", f"<tbody>{row}", 1))

    page.route("**/deliveries/*", with_another_attempt)
    page.clock.run_for(60_000)
    expect(page.locator("#delivery pre", has_text="another answer")).to_have_count(1)
    expect(page.locator("#delivery pre", has_text="come back later").first).to_be_visible()
    expect(page.locator("#delivery pre", has_text="another answer")).to_be_hidden()


def test_following_ends_where_there_is_nothing_to_follow(world, browse):
    page = browse(world.cookies["owner"])
    for path in [f"/deliveries/{world.names['success']}", "/endpoints/new", "/deliveries?page=2"]:
        page.goto(world.acme.home + path)
        expect(page.locator("[data-live-toggle]")).to_be_hidden()


def test_who_is_signed_out_meanwhile_is_not_asked_for_again(world, browse, fresh):
    fresh.endpoint(f"{world.receiver.url}/live")
    page = browse(fresh.owner)
    followed(page, f"{fresh.home}/deliveries")
    page.context.clear_cookies()
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.clock.run_for(6000)
    expect(page.locator("[data-live-toggle]")).to_have_text("Paused · Resume")
    assert refreshes(page, 300) == []
