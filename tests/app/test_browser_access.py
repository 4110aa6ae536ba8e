"""The page can be used in a real browser with the keyboard alone, a screen reader, and a phone."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.app.page import User, tab, tabs

NAMELESS = """() => {
    const named = e => (e.getAttribute('aria-label') || '').trim() || e.innerText?.trim() || e.title
        || (e.labels && [...e.labels].some(l => l.innerText.trim()))
        || (e.getAttribute('aria-labelledby') || '').split(' ')
            .some(id => document.getElementById(id)?.innerText.trim());
    const seen = e => e.offsetParent !== null && getComputedStyle(e).visibility != 'hidden';
    const all = [...document.querySelectorAll('input, textarea, select, button, audio, video, a[href]')];
    const silent = [...document.querySelectorAll('img')].filter(e => seen(e) && e.getAttribute('alt') === null);
    return [...all.filter(e => seen(e) && !named(e)), ...silent].map(e => e.outerHTML.slice(0, 300));
}"""


TOO_WIDE = """() => [...document.querySelectorAll('button, input, figure, img')]
    .filter(e => e.offsetParent && e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 200))"""


def test_the_keyboard_is_enough(user: User) -> None:
    page = user.page
    tab(page, "Generate")
    page.get_by_role("tab", name="Generate", exact=True).focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "() => [document.activeElement.id, document.activeElement.getAttribute('aria-label') || '']"
        )
        reached.append(here)
        if here[0] == "scm-go":
            break
    else:
        raise AssertionError(f"the button is never reached: {reached}")
    assert any("Model" in name for _, name in reached) or len(reached) > 4
    before = page.locator("#scm-status").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#scm-made figure").first).to_be_visible()
    page.wait_for_function("before => document.querySelector('#scm-status').innerText != before", arg=before)


def test_everything_has_a_name_for_screen_readers(user: User) -> None:
    for name in tabs(user.page):
        tab(user.page, name)
        assert user.page.evaluate(NAMELESS) == [], name


def test_a_phone_needs_no_sideways_scrolling(user: User) -> None:
    page = user.page
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        for name in ("Generate", "Live"):
            if name not in tabs(page):
                page.locator("button.overflow-menu, .overflow-menu button").first.click()
            tab(page, name)
            page.wait_for_timeout(100)
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
            assert page.evaluate(TOO_WIDE) == [], name
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})
