//! The same pages as Markdown, for people with an editor and for programs that read.

use std::fmt::Write as _;

use super::examples::{BASE, Example, LANGUAGES, pretty};
use super::guides::GUIDES;
use super::guides::Guide;
use super::reading::{self, Call, Field};
use super::text::Tongue;
use crate::api::Code;

/// A guide; links lead to the Markdown of other guides.
pub fn guide(guide: &Guide, tongue: Tongue) -> String {
    let mut table = String::new();
    row(&mut table, &[&tongue.say("Status"), &tongue.say("Code"), &tongue.say("Detail")]);
    row(&mut table, &["---"; 3]);
    for code in Code::ALL {
        row(&mut table, &[&code.status().to_string(), &format!("`{}`", code.name()), &code.example(tongue.0)]);
    }
    guide.text(tongue).replace("{{errors}}", table.trim_end())
}

/// A call.
pub fn call(call: &Call, tongue: Tongue) -> String {
    let say = |text: &str| tongue.say(text);
    let mut text = format!("# {}\n\n`{} {BASE}{}`\n\n", say(call.title), call.method, call.path);
    let _ = writeln!(text, "- {}: `{}`", say("Audience"), call.audience);
    let _ = writeln!(text, "- {}: `{}`", say("Permission"), call.permission);
    let _ = writeln!(text, "- {}: `{}`", say("Rate limit bucket"), call.bucket);
    if let Some(guide) = call.guide.and_then(super::guides::guide) {
        let _ = writeln!(text, "- {}: [{}]({}.md)", say("How-to guide"), guide.title(tongue), guide.page());
    }
    let _ = writeln!(text, "\n{}\n", say(call.about));
    if !call.parameters.is_empty() {
        section(&mut text, &say("Parameters"));
        let heads = ["Parameter", "In", "Type", "Required", "Description"].map(say);
        row(&mut text, &heads.each_ref().map(String::as_str));
        row(&mut text, &["---"; 5]);
        for parameter in &call.parameters {
            let name = format!("`{}`", parameter.name);
            let required = say(if parameter.required { "yes" } else { "no" });
            row(&mut text, &[&name, parameter.place, &parameter.kind, &required, &say(parameter.about)]);
        }
        text.push('\n');
    }
    if let Some(body) = &call.body {
        section(&mut text, &say("Request body"));
        let _ = writeln!(text, "{}\n", say(body.about));
        fields(&mut text, &body.fields, tongue, &say("required"), 0);
        text.push('\n');
    }
    section(&mut text, &say("Request"));
    let example = Example::of(call);
    for (name, language) in LANGUAGES {
        let _ = writeln!(text, "{name}:\n\n```{language}\n{}\n```\n", example.in_language(name));
    }
    if let Some((about, second)) = Example::with_options(call) {
        let _ = writeln!(text, "{}\n", say(about));
        for (name, language) in LANGUAGES {
            let _ = writeln!(text, "{name}:\n\n```{language}\n{}\n```\n", second.in_language(name));
        }
    }
    section(&mut text, &format!("{} {}", say("Response"), call.success.0));
    let _ = writeln!(text, "{}\n", say(call.success.1));
    if let Some((name, is_list, below)) = &call.answer {
        let of = if *is_list { format!("{} ", say("A list of")) } else { String::new() };
        let _ = writeln!(text, "{of}`{name}`:\n");
        fields(&mut text, below, tongue, &say("always"), 0);
        text.push('\n');
    }
    if let Some(example) = call.example {
        let _ = writeln!(text, "```json\n{}\n```\n", pretty(example));
    }
    text.push_str(&refusals(call, tongue));
    section(&mut text, &say("Related calls"));
    for other in call.related.iter().filter_map(|id| reading::call(id)) {
        let _ = writeln!(text, "- [{}]({}.md)", say(other.title), other.page());
    }
    text
}

/// Statuses, errors and headers of a call's answers.
fn refusals(call: &Call, tongue: Tongue) -> String {
    let say = |text: &str| tongue.say(text);
    let mut text = String::new();
    section(&mut text, &say("Response status codes"));
    let heads = ["Status", "Class", "Description", "Body"].map(say);
    row(&mut text, &heads.each_ref().map(String::as_str));
    row(&mut text, &["---"; 4]);
    for status in &call.statuses {
        let body = status.body.map_or_else(|| say("No body"), |name| format!("`{name}`"));
        let class = format!("{}xx", status.number / 100);
        row(&mut text, &[&status.number.to_string(), &class, &say(status.about), &body]);
    }
    text.push('\n');
    section(&mut text, &say("Errors"));
    row(&mut text, &[&say("Status"), &say("Code"), &say("Detail")]);
    row(&mut text, &["---"; 3]);
    for (status, code) in &call.errors {
        row(&mut text, &[&status.to_string(), &format!("`{code}`"), &tongue.detail(code, &call.body_fields())]);
    }
    text.push('\n');
    section(&mut text, &say("Response headers"));
    let mut told: Vec<(&str, &str)> = Vec::new();
    for (name, kind, about) in call.statuses.iter().flat_map(|status| &status.headers) {
        if !told.contains(&(name, about)) {
            told.push((name, about));
            let _ = writeln!(text, "- `{name}` ({kind}): {}", say(about));
        }
    }
    text.push('\n');
    text
}

/// `/llms.txt`: what there is, with a line on each.
pub fn contents(tongue: Tongue) -> String {
    let about = tongue.say("Webhooks that arrive: register endpoints, publish events, see every delivery.");
    let mut text = format!("# Aldaba\n\n> {about}\n");
    for (name, concepts) in [("Guides", false), ("Concepts", true)] {
        let _ = writeln!(text, "\n## {}\n", tongue.say(name));
        for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) {
            let (title, page, summary) = (guide.title(tongue), guide.page(), guide.summary(tongue));
            let _ = writeln!(text, "- [{title}]({BASE}{page}.md): {summary}");
        }
    }
    for group in reading::groups() {
        let _ = writeln!(text, "\n## {}\n", tongue.say(group.name));
        for call in group.calls {
            let (title, page) = (tongue.say(call.title), call.page());
            let _ = writeln!(text, "- [{title}]({BASE}{page}.md): `{} {}`", call.method, call.path);
        }
    }
    let _ = writeln!(text, "\n## OpenAPI\n\n- [openapi.json]({BASE}/openapi.json): OpenAPI 3.1");
    text
}

fn section(text: &mut String, title: &str) {
    let _ = writeln!(text, "## {title}\n");
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn fields(text: &mut String, below: &[Field], tongue: Tongue, required: &str, depth: usize) {
    for field in below {
        let indent = "  ".repeat(depth);
        let needed = if field.required { format!(", {required}") } else { String::new() };
        let bounds: Vec<String> = field.bounds.iter().map(|bound| format!(" `{bound}`")).collect();
        let bounds = bounds.concat();
        let about = tongue.say(field.about);
        let _ = writeln!(text, "{indent}- `{}` ({}{needed}): {about}{bounds}", field.name, field.kind);
        fields(text, &field.fields, tongue, required, depth + 1);
    }
}
