//! Charts, drawn on the server as SVG. Widths are in percent and heights in pixels, so that a chart fills any window
//! while its letters keep their size; nothing needs a style in the page.

use maud::{Markup, html};

use super::page_context::PageContext;
use super::parts::{day, millis, milliseconds, number};
use crate::api::StatisticsResource;

/// The height of the bars, in pixels.
const BARS: u64 = 168;
/// The height of the lines.
const LINES: u64 = 120;
/// The room above what is drawn, for the letters of the topmost line.
const ABOVE: u64 = 8;
/// The room below, for the times.
const BELOW: u64 = 24;
/// The room beside, for the numbers.
const BESIDE: u64 = 52;
/// The least that a bar shows of what is not zero, in tenths of a pixel.
const LEAST: u64 = 20;
/// The most times that are written below a chart.
const MOST_TIMES: i64 = 7;

/// A step of the series.
struct Step<'a> {
    at: &'a str,
    /// Seconds since the epoch.
    second: i64,
    success: u64,
    retrying: u64,
    failed: u64,
    p50: Option<u64>,
    p95: Option<u64>,
}

impl Step<'_> {
    fn attempts(&self) -> u64 {
        self.success + self.retrying + self.failed
    }
}

fn steps(statistics: &StatisticsResource) -> Vec<Step<'_>> {
    let steps = statistics.series.iter().map(|step| Step {
        at: &step.at,
        second: milliseconds(&step.at).expect("the API writes times that can be read") / 1_000,
        success: step.success,
        retrying: step.retrying,
        failed: step.failed,
        p50: step.p50,
        p95: step.p95,
    });
    steps.collect()
}

/// The attempts over time by their outcome, as stacked bars.
pub fn outcomes(cx: &PageContext, statistics: &StatisticsResource) -> Markup {
    let steps = steps(statistics);
    let most = steps.iter().map(Step::attempts).max().unwrap_or(0);
    let (tick, top) = axis(most);
    let [success, retrying, failed] =
        [statistics.success, statistics.retrying, statistics.failed].map(|n| number(cx, n));
    let about = cx.fill(
        "Attempts over time by outcome: {success} succeeded, {retrying} will be tried again, {failed} failed for good.",
        &[("success", &success), ("retrying", &retrying), ("failed", &failed)],
    );
    let words = [cx.say("Success"), cx.say("Retrying"), cx.say("Failed")];
    let legend = [("success", &words[0], &success), ("retrying", &words[1], &retrying), ("failed", &words[2], &failed)];
    html! { figure.chart {
        div.plot {
            (scale(tick, top, BARS, &|n| compact(cx, n)))
            svg.drawing role="img" aria-label=(about) width="100%" height=(ABOVE + BARS + BELOW) {
                defs { pattern #hatch width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.hatch-ground width="5" height="5" {}
                    rect.hatch-line width="2.5" height="5" {}
                } }
                (lines(tick, top, BARS))
                @for (at, step) in steps.iter().enumerate() { (bar(cx, step, at as u64, steps.len() as u64, top)) }
                (times(&steps, statistics.step_seconds, BARS))
            }
        }
        @if most == 0 { p.nothing { (cx.say("No attempts in this time.")) } }
        figcaption.legend {
            @for (class, word, n) in legend {
                span class={ "key " (class) } { (swatch(class)) (word) " " strong { (n) } }
            }
            span.zone { "UTC" }
        }
        details.numbers {
            summary { (cx.say("The numbers as a table")) }
            div.scroll tabindex="0" { table {
                thead { tr {
                    th scope="col" { (cx.say("Time")) }
                    @for word in &words { th.num scope="col" { (word) } }
                } }
                tbody { @for step in steps.iter().rev() { tr {
                    td.nowrap { (minute(step.at)) }
                    @for n in [step.success, step.retrying, step.failed] { td.num { (number(cx, n)) } }
                } } }
            } }
        }
    } }
}

/// One step: what succeeded at the bottom, what failed for good on top.
fn bar(cx: &PageContext, step: &Step<'_>, at: u64, steps: u64, top: u64) -> Markup {
    let floor = (ABOVE + BARS) * 10;
    let mut foot = floor;
    let parts = [("success", step.success), ("retrying", step.retrying), ("failed", step.failed)];
    let parts = parts.map(|(class, n)| {
        let tall = height(n, top, BARS);
        // What is drawn taller than it is goes into the room above.
        foot -= tall;
        (class, foot, tall)
    });
    let told = cx.fill(
        "{time}: {success} succeeded, {retrying} to be tried again, {failed} failed",
        &[
            ("time", &minute(step.at)),
            ("success", &number(cx, step.success)),
            ("retrying", &number(cx, step.retrying)),
            ("failed", &number(cx, step.failed)),
        ],
    );
    html! { g.bar {
        title { (told) }
        rect.hit x=(percent(at, steps)) y=(ABOVE) width=(percent(1, steps)) height=(BARS) {}
        @for (class, y, tall) in parts { @if tall > 0 {
            rect class=(class) x=(percent(at * 100 + 19, steps * 100)) y=(tenths(y)) width=(percent(62, steps * 100))
                height=(tenths(tall)) fill=[(class == "retrying").then_some("url(#hatch)")] {}
        } }
    } }
}

fn swatch(class: &str) -> Markup {
    html! { svg.swatch aria-hidden="true" width="12" height="12" {
        rect class=(class) width="12" height="12" rx="3" fill=[(class == "retrying").then_some("url(#hatch)")] {}
    } }
}

/// How fast receivers answered: three numbers, and two of them over time.
pub fn latency(cx: &PageContext, statistics: &StatisticsResource) -> Markup {
    let steps = steps(statistics);
    let whole = &statistics.response_time_ms;
    let tiles = [
        (whole.p50, cx.say("Median"), cx.say("half of the answers were faster")),
        (whole.p95, cx.say("p95"), cx.say("95% of the answers were faster")),
        (whole.p99, cx.say("p99"), cx.say("99% of the answers were faster")),
    ];
    html! {
        div.tiles.three { @for (time, label, about) in &tiles { div.tile {
            span.label { (label) }
            strong.value { (millis(cx, *time)) }
            span.note { (about) }
        } } }
        @if steps.iter().any(|step| step.p50.is_some()) { (over_time(cx, &steps, statistics.step_seconds)) }
    }
}

fn over_time(cx: &PageContext, steps: &[Step<'_>], step_seconds: u64) -> Markup {
    let of = |step: &Step<'_>| [step.p50, step.p95];
    let most = steps.iter().flat_map(of).flatten().max().unwrap_or(0);
    let (tick, top) = axis(most);
    let all = steps.len() as u64;
    let curves = [("p95", 1), ("p50", 0)].map(|(class, which)| {
        let heights: Vec<_> = steps.iter().map(|step| of(step)[which].map(|ms| ms * LINES * 10 / top.max(1))).collect();
        (class, curve(&heights, LINES * 10))
    });
    html! { figure.chart {
        div.plot {
            (scale(tick, top, LINES, &|ms| millis(cx, Some(ms))))
            svg.drawing role="img" aria-label=(cx.say("Answer times over time: the median and p95.")) width="100%"
                height=(ABOVE + LINES + BELOW) {
                (lines(tick, top, LINES))
                svg y=(ABOVE) width="100%" height=(LINES) viewBox={ "0 0 " (all * 10) " " (LINES * 10) }
                    preserveAspectRatio="none" {
                    @for (class, [line, dots]) in &curves {
                        path class={ "curve " (class) } d=(line) vector-effect="non-scaling-stroke" {}
                        path class={ "curve dots " (class) } d=(dots) vector-effect="non-scaling-stroke" {}
                    }
                }
                @for (at, step) in steps.iter().enumerate() { g.bar {
                    title { (cx.fill("{time}: median {p50}, p95 {p95}", &[
                        ("time", &minute(step.at)), ("p50", &millis(cx, step.p50)), ("p95", &millis(cx, step.p95)),
                    ])) }
                    rect.hit x=(percent(at as u64, all)) y=(ABOVE) width=(percent(1, all)) height=(LINES) {}
                } }
                (times(steps, step_seconds, LINES))
            }
        }
        figcaption.legend {
            @for (class, word) in [("p50", cx.say("Median")), ("p95", cx.say("p95"))] { span.key {
                svg.swatch aria-hidden="true" width="20" height="12" { path class={ "curve " (class) } d="M1 6h18" {} }
                (word)
            } }
            span.zone { "UTC" }
        }
        details.numbers {
            summary { (cx.say("The numbers as a table")) }
            div.scroll tabindex="0" { table {
                thead { tr {
                    th scope="col" { (cx.say("Time")) }
                    th.num scope="col" { (cx.say("Median")) }
                    th.num scope="col" { (cx.say("p95")) }
                } }
                tbody { @for step in steps.iter().rev() { tr {
                    td.nowrap { (minute(step.at)) }
                    td.num { (millis(cx, step.p50)) }
                    td.num { (millis(cx, step.p95)) }
                } } }
            } }
        }
    } }
}

/// Lines through what is known, interrupted where nothing is; and the points that stand alone, to be drawn as dots.
fn curve(heights: &[Option<u64>], tall: u64) -> [String; 2] {
    let (mut line, mut dots) = (String::new(), String::new());
    for (at, height) in heights.iter().enumerate() {
        let Some(height) = height else { continue };
        let goes_on = at > 0 && heights[at - 1].is_some();
        let alone = !goes_on && heights.get(at + 1).is_none_or(Option::is_none);
        let point = format!("{} {}", at * 10 + 5, tall - height);
        match (alone, goes_on) {
            // The ends of a stroke are round: one without a length is a dot.
            (true, _) => dots.push_str(&format!("M{point}h0.01")),
            (_, true) => line.push_str(&format!("L{point}")),
            _ => line.push_str(&format!("M{point}")),
        }
    }
    [line, dots]
}

/// The numbers beside a chart.
fn scale(tick: u64, top: u64, tall: u64, told: &dyn Fn(u64) -> String) -> Markup {
    html! { svg.scale aria-hidden="true" width=(BESIDE) height=(ABOVE + tall + BELOW) {
        @for n in ticks(tick, top) { text x=(BESIDE - 8) y=(level(n, top, tall) + 4) text-anchor="end" { (told(n)) } }
    } }
}

/// The lines that its numbers belong to.
fn lines(tick: u64, top: u64, tall: u64) -> Markup {
    html! { @for n in ticks(tick, top) {
        line.grid.floor[n == 0] x1="0" x2="100%" y1=(half(level(n, top, tall))) y2=(half(level(n, top, tall))) {}
    } }
}

/// A line of one pixel is sharp between two.
fn half(pixel: u64) -> String {
    format!("{pixel}.5")
}

fn ticks(tick: u64, top: u64) -> impl Iterator<Item = u64> {
    (0..=top / tick).map(move |n| n * tick)
}

fn level(n: u64, top: u64, tall: u64) -> u64 {
    ABOVE + tall - n * tall / top
}

/// The times below a chart. On a phone every second one goes.
fn times(steps: &[Step<'_>], seconds: u64, tall: u64) -> Markup {
    let marked = marked(steps, i64::try_from(seconds).expect("a step is a day at most"));
    html! { @for (at, text, index) in marked {
        text.odd[index % 2 == 1] x=(percent(at * 2 + 1, steps.len() as u64 * 2)) y=(ABOVE + tall + 18)
            text-anchor="middle" { (text) }
    } }
}

/// The steps that begin at a round time, with what is written below them.
fn marked(steps: &[Step<'_>], seconds: i64) -> Vec<(u64, String, usize)> {
    let whole = i64::try_from(steps.len()).expect("a chart has few steps") * seconds;
    let apart = round_time(whole);
    let round = (0u64..).zip(steps).filter(|(_, step)| step.second.rem_euclid(apart) < seconds);
    let texts = round.map(|(at, step)| {
        let text = if apart < 86_400 { step.at.get(11..16) } else { step.at.get(5..10) };
        (at, text.unwrap_or("").to_owned())
    });
    texts.enumerate().map(|(index, (at, text))| (at, text, index)).collect()
}

/// A round time of which not too many go into this many seconds.
fn round_time(whole: i64) -> i64 {
    let round = [60, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800];
    round.into_iter().find(|apart| whole / apart <= MOST_TIMES).unwrap_or(2_592_000)
}

/// `2026-05-01 05:14`
fn minute(iso: &str) -> String {
    format!("{} {}", day(iso), iso.get(11..16).unwrap_or(""))
}

/// The distance of the lines and the topmost one, so that up to five round numbers reach over `most`.
fn axis(most: u64) -> (u64, u64) {
    let least = most.div_ceil(4).max(1);
    let mut ten = 1;
    while ten * 10 <= least {
        ten *= 10;
    }
    let tick = [1, 2, 5, 10].into_iter().map(|n| n * ten).find(|tick| *tick >= least).unwrap_or(least);
    (tick, most.div_ceil(tick).max(1) * tick)
}

/// A round number in few letters.
fn compact(cx: &PageContext, n: u64) -> String {
    match n {
        0..10_000 => number(cx, n),
        10_000..1_000_000 => format!("{}k", n / 1_000),
        _ if n.is_multiple_of(1_000_000) => format!("{} M", number(cx, n / 1_000_000)),
        _ => format!("{}k", number(cx, n / 1_000)),
    }
}

/// How tall a bar is, in tenths of a pixel.
fn height(n: u64, top: u64, tall: u64) -> u64 {
    if n == 0 { 0 } else { (n * tall * 10 / top.max(1)).max(LEAST) }
}

fn tenths(n: u64) -> String {
    format!("{}.{}", n / 10, n % 10)
}

/// A part of a whole in percent.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = part * 100_000 / whole.max(1);
    format!("{}.{:03}%", thousandths / 1_000, thousandths % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_up_to_five_round_lines_and_reaches_over_the_most() {
        for (most, expected) in [
            (0, (1, 1)),
            (1, (1, 1)),
            (4, (1, 4)),
            (7, (2, 8)),
            (97, (50, 100)),
            (101, (50, 150)),
            (1_234, (500, 1_500)),
            (8_000, (2_000, 8_000)),
            (37_000, (10_000, 40_000)),
        ] {
            assert_eq!(axis(most), expected, "{most}");
        }
        for most in 0..5_000 {
            let (tick, top) = axis(most);
            assert!(top >= most && top / tick <= 4, "{most}: {tick}, {top}");
        }
    }

    #[test]
    fn what_is_not_zero_can_be_seen() {
        assert_eq!(height(0, 100, 100), 0);
        assert_eq!(height(1, 1_000_000, 100), LEAST);
        assert_eq!(height(50, 100, 100), 500);
        assert_eq!(height(100, 100, 100), 1_000);
    }

    #[test]
    fn a_part_is_written_in_percent() {
        assert_eq!(percent(1, 3), "33.333%");
        assert_eq!(percent(16, 2_400), "0.666%");
        assert_eq!(percent(1, 1), "100.000%");
        assert_eq!(tenths(1_234), "123.4");
    }

    #[test]
    fn times_stand_at_round_distances_and_not_too_close() {
        assert_eq!(round_time(3_600), 600);
        assert_eq!(round_time(86_400), 14_400);
        assert_eq!(round_time(7 * 86_400), 86_400);
    }

    #[test]
    fn a_step_that_contains_a_round_time_is_marked() {
        let hours = ["2026-05-01T03:14:00Z", "2026-05-01T04:14:00Z", "2026-05-01T05:14:00Z"];
        let empty = |at| Step {
            at,
            second: milliseconds(at).expect("a time") / 1_000,
            success: 0,
            retrying: 0,
            failed: 0,
            p50: None,
            p95: None,
        };
        let steps = hours.map(empty);
        assert_eq!(marked(&steps, 3_600).len(), 3);
    }

    #[test]
    fn a_line_is_interrupted_where_nothing_is_known() {
        let heights = [Some(10), Some(20), None, Some(30), None];
        assert_eq!(curve(&heights, 100), ["M5 90L15 80", "M35 70h0.01"]);
    }
}
