"""Spanish and English."""

from conftest import read_all
from pages import OUTSIDE, of_role
from playwright.sync_api import expect
from world import LOADED

# The page's own words: what data has in it is left out.
WORDS = r"""(page) => {
  const own = 'title, h1, h2, h3, th, dt, legend, label, summary, button, .button, nav a, .badge, .hint, .note, .muted, '
    + '.empty p, .notice p, .notice strong, .heading p, li > p, option, .tile .label';
  const data = 'code, pre, time, textarea, select, input, option, small, a:not(.button), strong, .star, [lang]';
  const found = new Set();
  for (const element of page.querySelectorAll(own)) {
    if (element.closest('[lang]:not(html), td.main, td.url, .copyable, .who, #f-events .checks')) continue;
    const copy = element.cloneNode(true);
    for (const part of copy.querySelectorAll(data)) part.remove();
    const text = copy.textContent.replace(/[\d\s]+/g, ' ').trim().replace(/ · Aldaba$/, '');
    if (/[a-z]{2}/i.test(text)) found.add(text);
  }
  return [page.documentElement.lang, [...found]];
}"""

# Words that are the same in both languages, names of the machine's, and what was typed.
SAME = {"Endpoint", "Endpoints", "URL", "ID", "Error", "p", "Español", "English", "test", "bytes"}


def is_data(text):
    """Types of events, addresses, names that were typed."""
    known = ("Acme Shipping", "Billing", "Warehouse in Monterrey", "The old shop", "Paused for now", "Refunds", "the tests")
    return ("http://" in text or "@" in text or text.startswith(known) or all("." in w or "_" in w or ":" in w for w in text.split()))


def mixed(page, paths):
    """Words of ours that are the same in English and in Spanish, by page."""
    english, spanish = (read_all(page, paths, WORDS, language) for language in ("en", "es"))
    both = {}
    for name in paths:
        (first, words), (second, palabras) = english[name], spanish[name]
        assert (first, second) == ("en", "es") and words and palabras, name
        both[name] = {text for text in set(words) & set(palabras) - SAME if not is_data(text)}
    return {name: words for name, words in both.items() if words}


def test_no_page_mixes_the_languages(world, browse):
    page = browse(world.operator)
    page.goto("/operator")
    # What the operator wrote into the catalog is in one language.
    written = set(world.server.call("GET", "/v1/event-types?per_page=100").text.split('"'))
    found = {name: words - written for name, words in mixed(page, of_role("operator", world.names)).items()}
    left = {name: words for name, words in found.items() if words}
    assert not left, left


def test_strangers_are_spoken_to_in_their_language(world, browse):
    page = browse(watched=False)
    page.goto("/sign-in")
    paths = {path: path.format(**world.names) for path in [*OUTSIDE.values(), "/join/nothing", "/portal/nothing"]}
    left = mixed(page, paths)
    assert not left, left


def test_the_switch_of_the_language_keeps_the_page_and_is_remembered(world, browse, size):
    page = browse(world.cookies["owner"], size)
    page.goto(f"{world.acme.home}/deliveries?status=failed")
    if size == "phone":
        page.get_by_text("Menu", exact=True).click()
    page.get_by_role("link", name="Español").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Entregas")
    assert "status=failed" in page.url
    page.goto(f"{world.acme.home}/endpoints")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    page.goto(f"{world.acme.home}/endpoints?lang=en")
    page.goto(f"{world.acme.home}/endpoints")
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_numbers_are_written_as_the_language_writes_them(world, browse):
    page = browse(world.cookies["owner"], locale="es-MX")
    page.goto(f"{world.acme.home}/deliveries?status=success")
    expect(page.locator(".pager p")).to_contain_text(f"{LOADED:,}".replace(",", "."))
    page.goto(f"{world.acme.home}/deliveries?status=success&lang=en")
    expect(page.locator(".pager p")).to_contain_text(f"{LOADED:,}")


def test_a_refusal_is_in_the_language_of_the_page(world, browse):
    page = browse(world.cookies["owner"], locale="es-MX")
    page.goto(f"{world.acme.home}/deliveries?min_attempt=x")
    expect(page.locator("#f-min_attempt-error")).to_contain_text("admite")
