"""Coming in and going out: passwords, second factors, sessions."""

import re
import subprocess
from urllib.parse import quote

import pytest
from conftest import ARGUMENTS, CHROMIUM, picture
from playwright.sync_api import expect
from world import PASSWORD, PROGRAM, Server, eventually, free_port, one_time_code


def sign_in(page, email, password=PASSWORD, code=""):
    page.get_by_label("E-mail address").fill(email)
    page.locator("#f-password").fill(password)
    page.locator("#f-code").fill(code)
    page.get_by_role("button", name="Sign in").click()


def open_menu(page, size):
    if size == "phone":
        page.get_by_text("Menu", exact=True).click()


def heading(page):
    return page.get_by_role("heading", level=1)


def test_whoever_signs_in_comes_to_the_page_that_they_wanted(world, browse, fresh, size):
    page = browse("", size)
    page.goto(f"{fresh.home}/deliveries?status=failed")
    expect(heading(page)).to_have_text("Sign in")
    sign_in(page, fresh.owner_email, "not the password")
    expect(page.get_by_role("alert")).to_have_text("The e-mail address, the password or the code is wrong.")
    expect(page.get_by_label("E-mail address")).to_have_value(fresh.owner_email)
    expect(page.locator("#f-password")).to_have_value("")
    sign_in(page, "nobody@example.com")
    expect(page.get_by_role("alert")).to_have_text("The e-mail address, the password or the code is wrong.")
    sign_in(page, fresh.owner_email.upper())
    expect(heading(page)).to_have_text("Deliveries")
    assert page.url.endswith(f"{fresh.home}/deliveries?status=failed")
    open_menu(page, size)
    page.get_by_role("button", name="Sign out").click()
    expect(heading(page)).to_have_text("Sign in")
    page.goto(fresh.home)
    expect(heading(page)).to_have_text("Sign in")


def test_the_first_address_leads_each_to_their_own(world, browse, fresh):
    homes = [(fresh.owner, "Overview", fresh.home), (world.operator, "Accounts", "/operator"), ("", "Sign in", "/sign-in")]
    for cookie, title, path in homes:
        page = browse(cookie)
        page.goto("/")
        expect(heading(page)).to_have_text(title)
        assert page.url.split("?")[0].rstrip("/") == world.server.base + path


def test_nobody_is_led_to_another_site_after_signing_in(world, browse, fresh):
    for wrong in ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]:
        page = browse()
        page.goto(f"/sign-in?next={quote(wrong)}")
        sign_in(page, fresh.owner_email)
        expect(heading(page)).to_have_text("Overview")
        assert page.url.startswith(world.server.base + fresh.home)


def test_the_cookie_cannot_be_read_by_a_script(world, browse, fresh):
    page = browse()
    page.goto("/sign-in")
    sign_in(page, fresh.owner_email)
    expect(heading(page)).to_have_text("Overview")
    cookie, = [c for c in page.context.cookies() if c["name"] == "aldaba_session"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert page.evaluate("document.cookie").find("aldaba_session") == -1


def test_signing_out_everywhere_ends_every_session(world, browse, fresh, size):
    here, there = browse(fresh.owner, size), browse(world.server.sign_in(fresh.owner_email), size)
    there.goto(fresh.home)
    expect(heading(there)).to_have_text("Overview")
    here.goto(fresh.home)
    open_menu(here, size)
    here.get_by_role("link", name="Your account").click()
    here.get_by_role("button", name="Sign out everywhere").click()
    expect(heading(here)).to_have_text("Sign in")
    there.reload()
    expect(heading(there)).to_have_text("Sign in")


def test_another_password_ends_the_other_sessions(world, browse, fresh, size):
    here, there = browse(fresh.owner, size), browse(world.server.sign_in(fresh.owner_email), size)
    here.goto("/me")
    here.locator("#f-current").fill("not the password")
    here.locator("#f-password").fill("another one entirely")
    here.get_by_role("button", name="Change the password").click()
    expect(here.get_by_role("alert")).to_contain_text("Nothing was changed.")
    here.locator("#f-current").fill(PASSWORD)
    here.locator("#f-password").fill("short")
    here.get_by_role("button", name="Change the password").click()
    expect(here.get_by_role("alert")).to_contain_text("A password has 10 to")
    here.locator("#f-current").fill(PASSWORD)
    here.locator("#f-password").fill("another one entirely")
    here.get_by_role("button", name="Change the password").click()
    expect(here.get_by_text("Your password is changed.")).to_be_visible()
    there.goto(fresh.home)
    expect(heading(there)).to_have_text("Sign in")
    sign_in(there, fresh.owner_email)
    expect(there.get_by_role("alert")).to_be_visible()
    sign_in(there, fresh.owner_email, "another one entirely")
    expect(heading(there)).to_have_text("Overview")


def test_a_second_factor_is_set_up_asked_for_and_turned_off(world, browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto("/me")
    page.get_by_role("link", name="Set up a second factor").click()
    expect(page.get_by_role("img", name=re.compile("QR code"))).to_be_visible()
    key = page.locator(".steps pre code").inner_text().strip()
    page.locator("#f-code").fill("000000")
    page.locator("#f-current").fill(PASSWORD)
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    assert page.locator(".steps pre code").inner_text().strip() == key, "the app has it already"
    page.locator("#f-code").fill(one_time_code(key))
    page.locator("#f-current").fill(PASSWORD)
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_text("Signing in takes a code of your app from now on.")).to_be_visible()
    picture(page, f"me-two-factor-{size}")

    other = browse("", size)
    other.goto("/sign-in")
    sign_in(other, fresh.owner_email)
    expect(other.get_by_role("alert")).to_be_visible()

    page.get_by_role("button", name="Turn it off").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed.")
    # A code works once, so the next one is taken.
    page.locator("#f-factor-current").fill(PASSWORD)
    page.locator("#f-factor-code").fill(one_time_code(key, steps_ahead=1))
    page.get_by_role("button", name="Turn it off").click()
    expect(page.get_by_text("Signing in takes your password alone.")).to_be_visible()
    sign_in(other, fresh.owner_email)
    expect(heading(other)).to_have_text("Overview")


def test_who_tries_too_often_is_told_to_wait(browse, tmp_path):
    strict = Server(tmp_path, RATE_LIMITS__RATE_LIMITED_LOGIN="2/60s")
    try:
        page = browse(base=strict.base)
        page.goto("/sign-in")
        for _ in range(2):
            sign_in(page, "ana@example.com", "a guess that is wrong")
            expect(page.get_by_role("alert")).to_contain_text("wrong")
        sign_in(page, "ana@example.com", "a guess that is wrong")
        expect(page.get_by_role("alert")).to_contain_text("Rate limit exceeded")
        expect(page.get_by_label("E-mail address")).to_have_value("ana@example.com")
    finally:
        strict.stop()


def test_the_link_of_aldaba_dev_lets_in_without_a_password(browse, tmp_path):
    base = f"http://127.0.0.1:{free_port()}"
    dev = subprocess.Popen([PROGRAM, "dev", "--listen", base.removeprefix("http://")], cwd=tmp_path,
                           stdout=(tmp_path / "out").open("wb"), stderr=subprocess.STDOUT)
    try:
        eventually(lambda: "dashboard" in (tmp_path / "out").read_text(), "aldaba dev")
        page = browse(base=base)
        page.goto("/")
        expect(heading(page)).to_have_text("Sign in")
        page.goto(re.search(r"dashboard +(\S+)", (tmp_path / "out").read_text())[1])
        expect(heading(page)).to_have_text("Overview")
        expect(page.locator("#deliveries tbody tr")).to_have_count(1)
    finally:
        dev.terminate()
        dev.wait(10)


@pytest.mark.parametrize("headers", [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {}])
def test_a_form_of_another_site_does_nothing(world, fresh, headers):
    id = fresh.endpoint(f"{world.receiver.url}/forged")
    answer = world.server.send(f"{fresh.home}/endpoints/{id}/pause", {"csrf": "0" * 32}, fresh.owner, **headers)
    assert answer.status == 403 and "Nothing was changed." in answer.text
    assert fresh.read_endpoint(id)["status"] == "active"


def test_a_page_of_another_origin_cannot_act_in_somebodys_name(world, chromium, fresh):
    id = fresh.endpoint(f"{world.receiver.url}/forged")
    context = chromium.new_context()
    context.add_cookies([{"name": "aldaba_session", "value": fresh.owner, "url": world.server.base, "sameSite": "Lax"}])
    page = context.new_page()
    page.goto("about:blank")
    page.set_content(f'<form method="post" action="{world.server.base}{fresh.home}/endpoints/{id}/pause"><button>Win</button></form>')
    page.get_by_role("button").click()
    expect(page.locator("h1")).not_to_have_text("")
    assert fresh.read_endpoint(id)["status"] == "active"
    context.close()


def test_forms_work_where_the_browser_says_little_of_where_they_come_from(world, playwright, fresh):
    # Over plain HTTP to another name than localhost a browser does not say whether a form is of the same site.
    named = [*ARGUMENTS, "--host-resolver-rules=MAP hooks.lan 127.0.0.1"]
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=named)
    page = chromium.new_page(base_url=world.server.base.replace("127.0.0.1", "hooks.lan"))
    page.goto("/sign-in")
    sign_in(page, fresh.owner_email)
    expect(heading(page)).to_have_text("Overview")
    page.goto(f"{fresh.home}/event-types/stock.low")
    page.get_by_role("button", name="Publish").click()
    expect(heading(page)).to_have_text("Event stock.low")
    chromium.close()
