//! The parts of the dashboard's pages: heads, badges, times, forms, notices, pagers. Each is a function from values to
//! markup.

use maud::{Markup, html};
use url::form_urlencoded::Serializer;

use super::form_errors::fault;
use super::page_context::{Failure, Fault, PageContext};
use crate::api::Pagination;

/// How a notice, a badge or a number is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Info,
    Good,
    Warn,
    Bad,
}

impl Kind {
    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// The top of a page: its name, a line about it, what can be done.
pub fn head(title: &str, about: Option<&str>, actions: Markup) -> Markup {
    html! { div.head {
        div.heading { h1 { (title) } @if let Some(about) = about { p { (about) } } }
        div.actions { (actions) }
    } }
}

/// Where this page is: the pages above it. It stands above the head.
pub fn crumbs(cx: &PageContext, trail: &[(&str, &str)]) -> Markup {
    html! { nav.crumbs aria-label=(cx.say("Where you are")) { ol {
        @for (label, href) in trail { li { a href=(href) { (label) } } }
    } } }
}

/// Nothing, for the eye and for the ear.
pub fn none(cx: &PageContext) -> Markup {
    html! { span.none { span aria-hidden="true" { "—" } span.sr { (cx.say("none")) } } }
}

/// Names as code, each on a line of its own; nothing where there are none.
pub fn codes(cx: &PageContext, names: Option<&[String]>) -> Markup {
    match names {
        Some(names) => html! { @for name in names { (code(name)) br; } },
        None => none(cx),
    }
}

/// A text that is there, and is not empty.
pub fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// When something was.
pub fn time(cx: &PageContext, iso: &str) -> Markup {
    moment(cx, iso, false)
}

/// The same, or nothing where it never was.
pub fn time_or_none(cx: &PageContext, iso: Option<&str>) -> Markup {
    iso.map_or_else(|| none(cx), |iso| time(cx, iso))
}

/// When something will be.
pub fn until(cx: &PageContext, iso: &str) -> Markup {
    moment(cx, iso, true)
}

/// The same, or nothing where it will not be.
pub fn until_or_none(cx: &PageContext, iso: Option<&str>) -> Markup {
    iso.map_or_else(|| none(cx), |iso| until(cx, iso))
}

fn moment(cx: &PageContext, iso: &str, due: bool) -> Markup {
    let Some(at) = milliseconds(iso) else { return html! { time { (iso) } } };
    let words = match Distance::between(cx.now, at) {
        Distance::Here | Distance::Soon if !due => cx.say("just now"),
        Distance::Here => cx.say("any moment"),
        Distance::Soon => cx.say("in less than a minute"),
        Distance::Minutes(n) if n > 0 => cx.fill("{n} min ago", &[("n", &n)]),
        Distance::Minutes(n) => cx.fill("in {n} min", &[("n", &-n)]),
        Distance::Hours(n) if n > 0 => cx.fill("{n} h ago", &[("n", &n)]),
        Distance::Hours(n) => cx.fill("in {n} h", &[("n", &-n)]),
        Distance::Days(n) if n > 0 => cx.fill("{n} d ago", &[("n", &n)]),
        Distance::Days(n) => cx.fill("in {n} d", &[("n", &-n)]),
        Distance::Far => day(iso).to_owned(),
    };
    html! { time datetime=(iso) title=(written_out(iso)) data-ago=(if due { "due" } else { "" }) { (words) } }
}

/// The words that the script needs to say times as this file does, as JSON for an attribute of the body.
pub fn clock_words(cx: &PageContext) -> String {
    serde_json::json!({
        "now": cx.say("just now"), "due": cx.say("any moment"), "soon": cx.say("in less than a minute"),
        "minutes": cx.say("{n} min ago"), "hours": cx.say("{n} h ago"), "days": cx.say("{n} d ago"),
        "in_minutes": cx.say("in {n} min"), "in_hours": cx.say("in {n} h"), "in_days": cx.say("in {n} d"),
    })
    .to_string()
}

/// How far an instant is from now, in the largest unit that fits; what is to come is negative. `ago` in dashboard.js is
/// the same rule.
#[derive(PartialEq, Eq, Debug)]
enum Distance {
    Here,
    Soon,
    Minutes(i64),
    Hours(i64),
    Days(i64),
    /// So far that its date says more.
    Far,
}

impl Distance {
    fn between(now: i64, at: i64) -> Self {
        let seconds = (now - at) / 1_000;
        // What was is told in whole units that have gone by; what will be, to the nearest: a week from now is in 7
        // days.
        let told = |length: i64| if seconds < 0 { (seconds - length / 2) / length } else { seconds / length };
        match seconds.abs() {
            0..60 if seconds < 0 => Self::Soon,
            0..60 => Self::Here,
            60..3_600 => Self::Minutes(told(60)),
            3_600..86_400 => Self::Hours(told(3_600)),
            86_400..2_592_000 => Self::Days(told(86_400)),
            _ => Self::Far,
        }
    }
}

/// Milliseconds since the epoch of a time as the API writes it.
pub fn milliseconds(iso: &str) -> Option<i64> {
    Some(iso.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// `2026-05-01 05:14:38 UTC`
pub fn written_out(iso: &str) -> String {
    match (iso.get(..10), iso.get(11..19)) {
        (Some(day), Some(clock)) => format!("{day} {clock} UTC"),
        _ => iso.to_owned(),
    }
}

/// The date in a time.
pub fn day(iso: &str) -> &str {
    iso.get(..10).unwrap_or(iso)
}

/// What state something is in: a dot and a word.
pub fn status(cx: &PageContext, name: &str) -> Markup {
    let (kind, word) = match name {
        "active" => ("good", cx.say("Active")),
        "success" => ("good", cx.say("Success")),
        "completed" => ("good", cx.say("Completed")),
        "finished" => ("good", cx.say("Finished")),
        "healthy" => ("good", cx.say("Healthy")),
        "retrying" => ("warn", cx.say("Retrying")),
        "failing" => ("warn", cx.say("Failing")),
        "deprecated" => ("warn", cx.say("Deprecated")),
        "failed" => ("bad", cx.say("Failed")),
        "auto_disabled" => ("bad", cx.say("Auto-disabled")),
        "pending" => ("info", cx.say("Pending")),
        "counting" => ("info", cx.say("Counting")),
        "running" => ("info", cx.say("Running")),
        "invited" => ("info", cx.say("Invited")),
        "disabled" => ("idle", cx.say("Paused")),
        "cancelled" => ("idle", cx.say("Cancelled")),
        "revoked" => ("idle", cx.say("Revoked")),
        "expired" => ("idle", cx.say("Expired")),
        "archived" => ("idle", cx.say("Archived")),
        other => ("idle", other.replace('_', " ")),
    };
    badge(kind, &word)
}

/// A badge with a word of the page's own. The kind is `good`, `warn`, `bad`, `info` or `idle`.
pub fn badge(kind: &str, word: &str) -> Markup {
    html! { span class={ "badge " (kind) } { (word) } }
}

/// What a receiver answered.
pub fn http_status(cx: &PageContext, code: Option<u16>) -> Markup {
    let Some(code) = code else { return html! { span class="http idle" { (cx.say("no answer")) } } };
    let kind = match code / 100 {
        2 => "good",
        4 => "warn",
        5 => "bad",
        _ => "idle",
    };
    html! { span class={ "http " (kind) } { (code) } }
}

/// How long something took.
pub fn millis(cx: &PageContext, value: Option<u64>) -> String {
    value.map_or_else(|| "—".to_owned(), |value| duration(value, decimal_mark(cx)))
}

fn duration(millis: u64, mark: char) -> String {
    let tenths = (millis + 50) / 100;
    match millis {
        ..1_000 => format!("{millis} ms"),
        1_000..9_950 => format!("{}{mark}{} s", tenths / 10, tenths % 10),
        _ => format!("{} s", (millis + 500) / 1_000),
    }
}

/// A number with its thousands apart.
pub fn number(cx: &PageContext, n: u64) -> String {
    grouped(n, if decimal_mark(cx) == '.' { ',' } else { '.' })
}

fn decimal_mark(cx: &PageContext) -> char {
    if cx.locale.code() == "es" { ',' } else { '.' }
}

fn grouped(n: u64, mark: char) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(mark);
        }
        text.push(digit);
    }
    text
}

/// A message at the top of a page.
pub fn notice(kind: Kind, content: Markup) -> Markup {
    let role = if kind == Kind::Bad { "alert" } else { "status" };
    html! { div class={ "notice " (kind.class()) } role=(role) { (content) } }
}

/// What was wrong with a form, above it: each fault, with a link to its field.
pub fn faults(cx: &PageContext, failure: Option<&Failure>) -> Markup {
    let Some(failure) = failure else { return html! {} };
    html! { div.notice.bad.faults role="alert" tabindex="-1" {
        strong { (cx.say("Nothing was changed.")) }
        ul { @for fault in &failure.faults { li {
            @match &fault.field {
                Some(field) => a href={ "#f-" (field) } { (fault.detail) },
                None => (fault.detail),
            }
        } } }
        @if let Some(seconds) = failure.retry_after { p { (cx.fill("Try again in {n} s.", &[("n", &seconds)])) } }
    } }
}

/// What stands where a list would be.
pub fn empty(title: &str, text: &str, action: Option<(&str, &str)>) -> Markup {
    html! { div.empty {
        h2 { (title) }
        p { (text) }
        @if let Some((href, label)) = action { (button(href, label, "primary")) }
    } }
}

/// Which part of a list this is, and the ways to the parts beside it. `path` is the page's own address; what the
/// query asks for stays. `here` is how many entries this part has.
pub fn pager(cx: &PageContext, list: &Pagination, here: usize, path: &str) -> Markup {
    let (page, pages) = (list.page.max(1), list.total_pages);
    let Some((start, end)) = shown(page, list.per_page, here as u64) else { return html! {} };
    let to = |page| at_page(cx, path, page);
    let more = if list.total_is_minimum { "+" } else { "" };
    let [start, end] = [start, end].map(|n| number(cx, n));
    let total = number(cx, list.total) + more;
    html! { nav.pager aria-label=(cx.say("Pages of the list")) {
        p { (cx.fill("{first}–{last} of {total}", &[("first", &start), ("last", &end), ("total", &total)])) }
        @if pages > 1 { div {
            @if page > 1 { a.button rel="prev" href=(to(page - 1)) { (cx.say("Previous")) } }
            @if page < pages { a.button rel="next" href=(to(page + 1)) { (cx.say("Next")) } }
        } }
        @if page >= pages && list.goes_on() { p.muted { (pages_end(cx, list)) } }
    } }
}

/// Says how far the pages of a long list go.
pub fn pages_end(cx: &PageContext, list: &Pagination) -> String {
    cx.fill("Pages show the newest {n} entries of a list.", &[("n", &number(cx, list.total_pages * list.per_page))])
}

/// The numbers of the first and the last of `here` entries on a page.
fn shown(page: u64, per_page: u64, here: u64) -> Option<(u64, u64)> {
    let first = (page - 1) * per_page + 1;
    (here > 0).then(|| (first, first + here - 1))
}

/// The address of a page of the list that is shown, with all else that was asked for. The first page has no number.
pub fn at_page(cx: &PageContext, path: &str, page: u64) -> String {
    match with_page(&cx.query, page) {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

fn with_page(query: &[(String, String)], page: u64) -> String {
    let kept = query.iter().filter(|(name, value)| name != "page" && name != "lang" && !value.is_empty());
    let mut text = Serializer::new(String::new());
    text.extend_pairs(kept);
    if page > 1 {
        text.append_pair("page", &page.to_string());
    }
    text.finish()
}

/// A field of a form. Its id is `f-` and its name.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub name: &'a str,
    pub label: &'a str,
    pub value: &'a str,
    pub hint: &'a str,
    pub error: Option<&'a Fault>,
    /// `text`, `url`, `email`, `password`, `datetime-local`, `date`, `number` or `search`.
    pub kind: &'a str,
    pub required: bool,
    pub autocomplete: &'a str,
    /// The most characters that it takes.
    pub max: Option<usize>,
}

impl Default for Input<'_> {
    fn default() -> Self {
        Self {
            name: "",
            label: "",
            value: "",
            hint: "",
            error: None,
            kind: "text",
            required: false,
            autocomplete: "off",
            max: None,
        }
    }
}

impl Input<'_> {
    fn id(&self) -> String {
        format!("f-{}", self.name)
    }

    /// The ids of what describes it.
    fn described(&self) -> Option<String> {
        described(self.name, self.hint, self.error)
    }

    fn around(&self, control: &Markup) -> Markup {
        html! { div.field.wrong[self.error.is_some()] {
            label for=(self.id()) { (self.label) @if self.required { (star()) } }
            (hint(self.name, self.hint))
            (control)
            (error(self.name, self.error))
        } }
    }
}

/// The attribute `required` says the same to those who do not see it.
fn star() -> Markup {
    html! { span.star aria-hidden="true" { "*" } }
}

fn described(name: &str, hint: &str, error: Option<&Fault>) -> Option<String> {
    match (hint.is_empty(), error.is_some()) {
        (true, false) => None,
        (false, false) => Some(format!("f-{name}-hint")),
        (true, true) => Some(format!("f-{name}-error")),
        (false, true) => Some(format!("f-{name}-hint f-{name}-error")),
    }
}

fn hint(name: &str, text: &str) -> Markup {
    html! { @if !text.is_empty() { p.hint id={ "f-" (name) "-hint" } { (text) } } }
}

fn error(name: &str, fault: Option<&Fault>) -> Markup {
    html! { @if let Some(fault) = fault { p.error id={ "f-" (name) "-error" } { (fault.detail) } } }
}

/// A line of text to fill in.
pub fn input(f: &Input<'_>) -> Markup {
    f.around(&html! {
        input id=(f.id()) name=(f.name) type=(f.kind) value=[(f.kind != "password").then_some(f.value)]
            required[f.required] autocomplete=(f.autocomplete) maxlength=[f.max] aria-describedby=[f.described()]
            aria-invalid=[f.error.map(|_| "true")];
    })
}

/// Lines of text to fill in.
pub fn area(f: &Input<'_>, rows: u32) -> Markup {
    // A browser drops the first line break in a textarea.
    f.around(&html! {
        textarea id=(f.id()) name=(f.name) rows=(rows) required[f.required] autocomplete=(f.autocomplete)
            spellcheck="false" maxlength=[f.max] aria-describedby=[f.described()]
            aria-invalid=[f.error.map(|_| "true")] { "\n" (f.value) }
    })
}

/// One of several values.
pub fn select(f: &Input<'_>, options: &[(&str, &str)]) -> Markup {
    f.around(&html! {
        select id=(f.id()) name=(f.name) required[f.required] autocomplete=(f.autocomplete)
            aria-describedby=[f.described()] aria-invalid=[f.error.map(|_| "true")] {
            @for (value, label) in options { option value=(value) selected[*value == f.value] { (label) } }
        }
    })
}

/// Any of several values. An option is its value, its label, and whether it is checked.
pub fn checks(legend: &str, name: &str, options: &[(&str, &str, bool)], hint: &str, error: Option<&Fault>) -> Markup {
    html! {
        fieldset.field.wrong[error.is_some()] id={ "f-" (name) } tabindex="-1"
            aria-describedby=[described(name, hint, error)] {
            legend { (legend) }
            (self::hint(name, hint))
            div.checks { @for (value, label, checked) in options {
                label { input type="checkbox" name=(name) value=(value) checked[*checked]; span { (label) } }
            } }
            (self::error(name, error))
        }
    }
}

/// The button of a form: `""`, `"primary"` or `"danger"`.
pub fn submit(label: &str, kind: &str) -> Markup {
    html! { button class={ "button " (kind) } type="submit" { (label) } }
}

/// A form that is only its button.
pub fn post(cx: &PageContext, action: &str, label: &str, kind: &str) -> Markup {
    html! { form.inline method="post" action=(action) data-submit-once { (cx.form_start()) (submit(label, kind)) } }
}

/// A link that looks like a button: `""`, `"primary"` or `"danger"`.
pub fn button(href: &str, label: &str, kind: &str) -> Markup {
    html! { a class={ "button " (kind) } href=(href) { (label) } }
}

/// A button that copies the text beside it. It exists only with the script.
fn copy_button(cx: &PageContext) -> Markup {
    html! { button.copy type="button" hidden data-copy data-done=(cx.say("Copied")) { (cx.say("Copy")) } }
}

/// What is shown only once.
pub fn secret(cx: &PageContext, label: &str, value: &str) -> Markup {
    let rows = (value.len() / 44 + 1).min(6);
    html! { section.secret {
        label for="secret" { (label) }
        div.copyable {
            textarea #secret readonly rows=(rows) spellcheck="false" autocomplete="off"
                aria-describedby="secret-hint" { (value) }
            (copy_button(cx))
        }
        p #secret-hint { (cx.say("Copy it now and keep it safe. It is not shown again.")) }
    } }
}

/// A text to take along: an id, a command, a body.
pub fn copyable(cx: &PageContext, text: &str) -> Markup {
    // What scrolls can be reached by the keyboard.
    let many = text.contains('\n') || text.len() > 60;
    html! { div.copyable.line[!many] {
        pre tabindex=[many.then_some("0")] { code { (text) } }
        (copy_button(cx))
    } }
}

/// Names and what belongs to them.
pub fn facts(rows: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } } }
}

/// A word of the machine's.
pub fn code(text: &str) -> Markup {
    html! { code { (text) } }
}

/// What is said before a dangerous step, and what it asks.
#[derive(Clone, Copy, Default)]
pub struct Confirm<'a> {
    /// The page's heading: the step as a question.
    pub question: &'a str,
    /// What will happen, a sentence each.
    pub happens: &'a [String],
    /// What must be typed to go on, exactly; it is sent as the field `confirm`.
    pub type_this: Option<&'a str>,
    /// Whether something else was typed.
    pub mistyped: bool,
    /// Where the form is sent.
    pub action: &'a str,
    /// The button's label: what it does.
    pub label: &'a str,
    /// Where the link back goes.
    pub cancel: &'a str,
    /// Why it was refused.
    pub failure: Option<&'a Failure>,
    /// More fields of the form.
    pub fields: Option<&'a Markup>,
}

/// The page of a dangerous step.
pub fn confirm(cx: &PageContext, c: &Confirm<'_>) -> Markup {
    let typed = c.type_this.map(|name| {
        let wrong = fault(cx.say("Type it exactly as it stands above."), Some("confirm"));
        let label = cx.fill("Type {name} to confirm", &[("name", &name)]);
        let error = c.mistyped.then_some(&wrong);
        // What was mistyped stays to be mended.
        let value = cx.field("confirm");
        input(&Input { name: "confirm", label: &label, value, required: true, error, ..Input::default() })
    });
    html! {
        (head(c.question, None, html! {}))
        (faults(cx, c.failure))
        section.panel.danger-zone {
            @if !c.happens.is_empty() { ul { @for sentence in c.happens { li { (sentence) } } } }
            form method="post" action=(c.action) data-submit-once {
                (cx.form_start())
                @if let Some(fields) = c.fields { (fields) }
                @if let Some(typed) = typed { (typed) }
                div.buttons { (submit(c.label, "danger")) (button(c.cancel, &cx.say("Cancel"), "")) }
            }
        }
    }
}

/// The name of an event type, which is broken between its words where there is no room for it.
pub fn type_name(name: &str) -> Markup {
    html! { @for part in name.split_inclusive(['.', '_']) { (part) wbr; } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn a_distance_is_told_in_the_largest_unit_that_fits() {
        let now = 1_800_000_000_000;
        for (before, expected) in [
            (0, Distance::Here),
            (59_999, Distance::Here),
            (-59_999, Distance::Soon),
            (MINUTE, Distance::Minutes(1)),
            (59 * MINUTE + 59_999, Distance::Minutes(59)),
            (-4 * MINUTE, Distance::Minutes(-4)),
            (-7 * 24 * 60 * MINUTE + 5_000, Distance::Days(-7)),
            (60 * MINUTE, Distance::Hours(1)),
            (-25 * 60 * MINUTE, Distance::Days(-1)),
            (29 * 24 * 60 * MINUTE, Distance::Days(29)),
            (30 * 24 * 60 * MINUTE, Distance::Far),
        ] {
            assert_eq!(Distance::between(now, now - before), expected, "{before} ms");
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n, ','), text);
        }
        assert_eq!(grouped(12_345, '.'), "12.345");
    }

    #[test]
    fn a_duration_has_a_unit_that_suits_it() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (1_249, "1.2 s"),
            (9_949, "9.9 s"),
            (9_950, "10 s"),
            (75_400, "75 s"),
        ] {
            assert_eq!(duration(ms, '.'), text);
        }
        assert_eq!(duration(1_250, ','), "1,3 s");
    }

    #[test]
    fn a_page_of_a_list_knows_its_place() {
        assert_eq!(shown(1, 50, 50), Some((1, 50)));
        assert_eq!(shown(25, 50, 34), Some((1_201, 1_234)));
        assert_eq!(shown(1, 50, 7), Some((1, 7)));
        assert_eq!(shown(9, 50, 0), None);
    }

    #[test]
    fn the_way_to_another_page_keeps_the_question() {
        let query = [("status", "failed"), ("page", "2"), ("event_type", ""), ("lang", "es"), ("q", "a&b ñ")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(with_page(&query, 3), "status=failed&q=a%26b+%C3%B1&page=3");
        assert_eq!(with_page(&query, 1), "status=failed&q=a%26b+%C3%B1", "the first page has no number");
    }

    #[test]
    fn a_time_is_written_out_in_full() {
        assert_eq!(written_out("2026-05-01T05:14:38Z"), "2026-05-01 05:14:38 UTC");
        assert_eq!(written_out("soon"), "soon");
        assert_eq!(milliseconds("1970-01-01T00:00:01Z"), Some(1_000));
    }
}
