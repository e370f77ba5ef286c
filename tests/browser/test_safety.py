"""What the browser is told, and text that means no good."""

import re

import pytest
from pages import OUTSIDE, REFUSALS, of_role
from playwright.sync_api import expect
from world import HOSTILE

POLICY = {
    "default-src": "'none'", "style-src": "'self'", "script-src": "'self'", "img-src": "'self'", "connect-src": "'self'",
    "base-uri": "'none'", "form-action": "'self'", "frame-ancestors": "'none'",
}


def policy(answer):
    parts = [part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")]
    return {name: rest for name, rest in parts}


def test_every_page_has_a_strict_policy_and_is_kept_by_nobody(world):
    paths = [*of_role("operator", world.names).values(), *(path.format(**world.names) for path in OUTSIDE.values())]
    paths += [path.format(**world.names) for path, _ in REFUSALS.values()] + ["/join/nothing", "/portal/nothing"]
    for path in paths:
        answer = world.server.open(path, "" if path in OUTSIDE.values() else world.operator)
        if answer.status == 303:
            continue
        # What is left of a portal may stand in the frame that the portal stood in: it shows nothing of anybody's.
        holders = "*" if path.startswith("/portal/") else POLICY["frame-ancestors"]
        assert policy(answer) == {**POLICY, "frame-ancestors": holders}, path
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        # The address of a portal is its key: no other site is told of it.
        assert answer.headers["referrer-policy"] == "same-origin", path
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=\"|javascript:", answer.text), path
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
            assert address.startswith(("/", "#")) and not address.startswith("//"), f"{path}: {address}"


def test_the_files_of_the_pages_are_kept_and_come_from_here(world):
    text = world.server.open("/sign-in").text
    files = re.findall(r'(?:src|href)="(/[^"]*(?:\.css|\.js|\.svg)[^"]*)"', text)
    assert len(files) == 3
    for file in files:
        answer = world.server.open(file).expect(200)
        assert "immutable" in answer.headers["cache-control"] and answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?://(?!www\.w3\.org)|@import|url\(", answer.body), file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_text_stays_text(world, browse, scheme, size):
    page = browse(world.cookies["owner"], size, dark=scheme == "dark")
    home, names = world.acme.home, world.names
    for path in ["", "/endpoints", f"/endpoints/{names['hostile']}", f"/endpoints/{names['hostile']}/edit", "/deliveries",
                 f"/deliveries?endpoint_id={names['hostile']}", f"/deliveries/{names['hostile_delivery']}", "/audit-log"]:
        page.goto(home + path)
        expect(page.locator("main img[src=x], main script")).to_have_count(0)
        assert page.title() != "hacked"
    page.goto(f"{home}/deliveries/{names['hostile_delivery']}")
    for summary in page.locator("summary", has_text="Show").all():
        summary.click()
    answer = page.locator("td pre").first
    expect(answer).to_contain_text(HOSTILE)
    expect(page.locator("pre", has_text="ref_").first).to_contain_text("hacked")
    page.goto(f"{home}/endpoints/{names['hostile']}/edit")
    expect(page.get_by_role("textbox", name="Description")).to_have_value(f"Refunds {HOSTILE}")


def test_hostile_text_in_an_address_stays_text(world, browse):
    page = browse(world.cookies["owner"])
    for query in ["q", "status", "endpoint_id", "event_type", "from", "min_attempt", "page", "period", "done", "lang"]:
        for path in ["", "/deliveries", "/endpoints", "/audit-log", "/users"]:
            answer = world.server.open(f"{world.acme.home}{path}?{query}=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", world.operator)
            assert "<script>alert" not in answer.text, f"{path} {query}"
    page.goto(f"{world.acme.home}/deliveries?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    expect(page.get_by_role("searchbox", name="Search")).to_have_value('"><script>alert(1)</script>')
    world.server.open("/sign-in?next=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").expect(200)


def test_hostile_names_of_keys_accounts_and_types_stay_text(world, browse, fresh):
    name = "<img src=x onerror=alert(1)>'\"&amp;"
    fresh.call("POST", f"/v1/accounts/{fresh.id}/api-keys", {"name": name, "permissions": ["webhooks:read"]}).expect(201)
    world.server.call("PUT", f"/v1/accounts/{fresh.id}", {"name": name}).expect(200)
    page = browse(world.operator)
    page.goto(f"{fresh.home}/api-keys")
    expect(page.locator("tbody tr", has_text=name)).to_have_count(1)
    expect(page.locator("header .account")).to_contain_text(name)
    page.locator("tbody tr", has_text=name).get_by_role("link", name="Revoke").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.locator("#f-confirm").fill(name)
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.locator("tbody tr", has_text=name)).to_have_count(0)
    page.goto(f"/operator/accounts/{fresh.id}/delete")
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.goto("/operator")
    expect(page.locator("tbody tr", has_text=name).first).to_be_visible()


def test_a_body_that_is_large_stays_within_the_page(world, browse, fresh, size):
    fresh.endpoint(f"{world.receiver.url}/large")
    fresh.publish("order.created", {"id": "x" * 200, "word": "y" * 5_000, "list": list(range(2_000))})
    id = fresh.delivery(status="success")
    page = browse(fresh.owner, size)
    answer = page.goto(f"{fresh.home}/deliveries/{id}")
    assert len(answer.body()) < 150_000
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
