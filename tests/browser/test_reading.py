"""Every page, as each role sees it, on a phone and on a desk."""

import re

import pytest
from conftest import picture, read_all
from pages import NAVIGATION, OUTSIDE, REFUSALS, ROLES, SIZES, of_role

MOST_BYTES = 150_000

# What is wrong with a page as it stands in the window.
FAULTS = r"""(width) => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const wide = document.documentElement.scrollWidth;
  if (wide > width) {
    const over = all('main *').filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest('.scroll, pre, svg'));
    faults.push(`is ${wide} px wide: ${over.slice(0, 3).map((e) => e.tagName + '.' + e.className).join(' ')}`);
  }
  // Words for screen readers stand outside of a table that is scrolled, and widen the page, unless it holds them.
  if (all('.scroll .sr').some((e) => !e.closest('.scroll').contains(e.offsetParent))) faults.push('hidden words may widen the page');
  if (all('h1').length !== 1) faults.push(`${all('h1').length} headings of the first level`);
  for (const time of all('time')) {
    if (!/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/.test(time.title)) faults.push(`no exact time on hover: ${time.outerHTML}`);
  }
  for (const e of all('script:not([src]), style, [style]')) faults.push(`inline: ${e.outerHTML.slice(0, 80)}`);
  for (const e of all('*')) {
    for (const { name } of e.attributes) if (name.startsWith('on')) faults.push(`a handler: ${e.tagName} ${name}`);
  }
  for (const form of all('form[method=post]')) {
    if (!form.hasAttribute('data-submit-once') && !form.action.endsWith('/sign-out')) faults.push(`may be sent twice: ${form.action}`);
  }
  const ids = all('[id]').map((e) => e.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) faults.push(`two elements have the id ${id}`);
  for (const e of all('p, td, dd, h1, h2, button, a, label, span')) {
    if (/\{[a-z_]+\}|undefined|\bNaN\b|Option\(|Some\(/.test(e.textContent) && !e.closest('pre, textarea, code, .copyable')) {
      faults.push(`a word of the machine's: ${e.textContent.slice(0, 80)}`);
    }
  }
  return faults;
}"""


@pytest.mark.parametrize("role", ROLES)
def test_every_page_of_a_role_opens_and_fits_the_window(world, browse, role, size):
    page = browse(world.cookies[role], size)
    faults = []
    for name, path in of_role(role, world.names).items():
        answer = page.goto(path)
        if answer.status != 200:
            faults.append(f"{name}: {answer.status}")
        length = len(answer.body())
        if length > MOST_BYTES:
            faults.append(f"{name}: {length} bytes")
        faults += [f"{name}: {fault}" for fault in page.evaluate(FAULTS, SIZES[size]["width"])]
        if role in ("owner", "operator"):
            picture(page, f"{role}-{name}-{size}")
    assert not faults, "\n".join(faults)


def test_pages_for_strangers_and_refusals_fit_the_window(world, browse, size):
    faults = []
    stranger, owner = browse("", size), browse(world.cookies["owner"], size)
    outside = [(stranger, name, path, 200) for name, path in OUTSIDE.items()]
    outside += [(stranger, "spent-invitation", "/join/nothing", 404), (stranger, "expired-portal", "/portal/nothing", 404)]
    refused = [(owner, name, path, status) for name, (path, status) in REFUSALS.items()]
    for page, name, path, status in outside + refused:
        answer = page.goto(path.format(**world.names))
        if answer.status != status:
            faults.append(f"{name}: {answer.status}")
        faults += [f"{name}: {fault}" for fault in page.evaluate(FAULTS, SIZES[size]["width"])]
        picture(page, f"{name}-{size}")
    assert not faults, "\n".join(faults)


def test_the_first_page_with_its_files_is_small(world, browse):
    page = browse(world.cookies["owner"])
    answers = []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(world.acme.home, wait_until="networkidle")
    lengths = {answer.url: len(answer.body()) for answer in answers[:]}
    assert len(lengths) >= 3 and sum(lengths.values()) < MOST_BYTES, lengths


@pytest.mark.parametrize("role", ROLES)
def test_the_navigation_has_what_a_role_may_see_and_no_more(world, browse, role, size):
    page = browse(world.cookies[role], size)
    page.goto(world.acme.home)
    navigation = page.get_by_role("navigation", name="Main menu")
    if size == "phone":
        assert not navigation.is_visible()
        page.get_by_text("Menu", exact=True).click()
    assert navigation.get_by_role("link").all_inner_texts() == NAVIGATION[role]
    for name in NAVIGATION[role]:
        if size == "phone" and not navigation.is_visible():
            page.get_by_text("Menu", exact=True).click()
        with page.expect_navigation():
            navigation.get_by_role("link", name=name, exact=True).click()
        current = page.locator("nav [aria-current=page]").all_text_contents()
        expected = "Accounts" if name == "All accounts" else name
        assert current == [expected], page.url


@pytest.mark.parametrize("role", ROLES)
def test_every_link_that_a_role_is_shown_leads_to_a_page(world, role):
    start = "/operator" if role == "operator" else world.acme.home
    seen, waiting, dead = {}, [(start, "the address bar")], []
    while waiting:
        path, source = waiting.pop()
        # Of pages that differ in an id or a filter only, two are looked at.
        shape = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{6,}|(?<==)[^&]+", "…", path)
        if seen.setdefault(shape, set()) and (path in seen[shape] or len(seen[shape]) >= 2):
            continue
        seen[shape].add(path)
        if "/export" in path:
            continue
        answer = world.server.open(path, world.cookies[role])
        if answer.status == 303:
            answer = world.server.open(answer.headers["location"], world.cookies[role])
        # The audit log knows of what is gone.
        if answer.status != 200 and not (answer.status == 404 and "/audit-log" in source):
            dead.append(f"{path} from {source}: {answer.status}")
        if path.startswith("/docs"):
            continue
        for href in re.findall(r'<a [^>]*?href="([^"]*)"', answer.text):
            href = href.replace("&amp;", "&").split("#")[0]
            if href and "lang=" not in href:
                assert href.startswith("/"), f"{path} leads away to {href}"
                waiting.append((href, path))
    assert not dead, "\n".join(dead)
    assert len(seen) > 12, seen.keys()


def test_what_a_role_may_not_see_is_refused_with_an_explanation(world, browse):
    for role, paths in {"viewer": ["/api-keys", "/users", "/audit-log"], "developer": ["/users"]}.items():
        page = browse(world.cookies[role])
        for path in paths:
            assert page.goto(world.acme.home + path).status == 403
            assert page.get_by_role("heading", level=1).inner_text() == "You may not do this"
            assert page.get_by_text("Ask an owner of the account for a role that allows it.").is_visible()


def test_somebody_elses_account_is_not_there(world, browse, fresh):
    page = browse(fresh.owner)
    for path in [world.acme.home, f"{world.acme.home}/deliveries/{world.names['success']}", "/operator"]:
        assert page.goto(path).status == 404
        assert "Acme" not in page.content()
    stolen = f"{fresh.home}/deliveries/{world.names['success']}"
    assert page.goto(stolen).status == 404
    assert page.goto(f"{fresh.home}/endpoints/{world.names['warehouse']}").status == 404


def test_the_title_says_where_somebody_is(world, browse):
    page = browse(world.cookies["owner"])
    page.goto("/me")
    titles = read_all(page, of_role("owner", world.names), "(page) => page.title")
    assert all(title.endswith(" · Aldaba") for title in titles.values()), titles
    kinds = {}
    for name, title in titles.items():
        kinds.setdefault(title, set()).add(name.split("-")[0])
    alike = {title: names for title, names in kinds.items() if len(names) > 1}
    assert not alike, alike


def test_a_time_is_relative_and_moves_on(world, browse):
    page = browse(world.cookies["owner"])
    page.clock.install()
    page.goto(f"{world.acme.home}/users/{world.names['user']}")
    made = page.locator("dt", has_text="Invited").locator("xpath=following-sibling::dd").locator("time")
    assert re.fullmatch(r"just now|\d+ min ago", made.inner_text())
    page.clock.fast_forward("02:00:00")
    page.clock.run_for(21_000)
    assert made.inner_text() == "2 h ago"
    exact = made.get_attribute("title")
    assert exact[:10] == made.get_attribute("datetime")[:10] and exact.endswith(" UTC")
