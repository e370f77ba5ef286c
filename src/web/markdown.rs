//! The pages of the reference as Markdown, for editors and programs.

use std::fmt::Write as _;

use super::examples::{BASE, Example, LANGUAGES, pretty};
use super::guides::GUIDES;
use super::guides::Guide;
use super::operations::{self, Field, Operation};
use super::text::Locale;
use crate::api::Code;

/// A guide; links lead to the Markdown of other guides.
pub fn guide(guide: &Guide, locale: Locale) -> String {
    let mut table = String::new();
    row(&mut table, &[&locale.say("Status"), &locale.say("Code"), &locale.say("Detail")]);
    row(&mut table, &["---"; 3]);
    for code in Code::ALL {
        row(&mut table, &[&code.status().to_string(), &format!("`{}`", code.name()), &code.example(locale.0)]);
    }
    guide.text(locale).replace("{{errors}}", table.trim_end())
}

/// A call.
pub fn operation(operation: &Operation, locale: Locale) -> String {
    let say = |text: &str| locale.say(text);
    let mut text = format!("# {}\n\n`{} {BASE}{}`\n\n", say(operation.title), operation.method, operation.path);
    let _ = writeln!(text, "- {}: `{}`", say("Audience"), operation.audience);
    let _ = writeln!(text, "- {}: `{}`", say("Permission"), operation.permission);
    let _ = writeln!(text, "- {}: `{}`", say("Rate limit bucket"), operation.bucket);
    if let Some(guide) = operation.guide.and_then(super::guides::guide) {
        let _ = writeln!(text, "- {}: [{}]({}.md)", say("How-to guide"), guide.title(locale), guide.page());
    }
    let _ = writeln!(text, "\n{}\n", say(operation.about));
    if !operation.parameters.is_empty() {
        section(&mut text, &say("Parameters"));
        let heads = ["Parameter", "In", "Type", "Required", "Description"].map(say);
        row(&mut text, &heads.each_ref().map(String::as_str));
        row(&mut text, &["---"; 5]);
        for parameter in &operation.parameters {
            let name = format!("`{}`", parameter.name);
            let required = say(if parameter.required { "yes" } else { "no" });
            row(&mut text, &[&name, parameter.location, &parameter.kind, &required, &say(parameter.about)]);
        }
        text.push('\n');
    }
    if let Some(body) = &operation.body {
        section(&mut text, &say("Request body"));
        let _ = writeln!(text, "{}\n", say(body.about));
        fields(&mut text, &body.fields, locale, &say("required"), 0);
        text.push('\n');
    }
    section(&mut text, &say("Request"));
    let example = Example::of(operation);
    for (name, language) in LANGUAGES {
        let _ = writeln!(text, "{name}:\n\n```{language}\n{}\n```\n", example.in_language(name));
    }
    if let Some((about, second)) = Example::with_options(operation) {
        let _ = writeln!(text, "{}\n", say(about));
        for (name, language) in LANGUAGES {
            let _ = writeln!(text, "{name}:\n\n```{language}\n{}\n```\n", second.in_language(name));
        }
    }
    section(&mut text, &format!("{} {}", say("Response"), operation.success.0));
    let _ = writeln!(text, "{}\n", say(operation.success.1));
    if let Some((name, is_list, below)) = &operation.answer {
        let of = if *is_list { format!("{} ", say("A list of")) } else { String::new() };
        let _ = writeln!(text, "{of}`{name}`:\n");
        fields(&mut text, below, locale, &say("always"), 0);
        text.push('\n');
    }
    if let Some(example) = operation.example {
        let _ = writeln!(text, "```json\n{}\n```\n", pretty(example));
    }
    text.push_str(&refusals(operation, locale));
    section(&mut text, &say("Related calls"));
    for other in operation.related.iter().filter_map(|id| operations::operation(id)) {
        let _ = writeln!(text, "- [{}]({}.md)", say(other.title), other.page());
    }
    text
}

/// Statuses, errors and headers of a call's answers.
fn refusals(operation: &Operation, locale: Locale) -> String {
    let say = |text: &str| locale.say(text);
    let mut text = String::new();
    section(&mut text, &say("Response status codes"));
    let heads = ["Status", "Class", "Description", "Body"].map(say);
    row(&mut text, &heads.each_ref().map(String::as_str));
    row(&mut text, &["---"; 4]);
    for status in &operation.statuses {
        let body = status.body.map_or_else(|| say("No body"), |name| format!("`{name}`"));
        let class = format!("{}xx", status.number / 100);
        row(&mut text, &[&status.number.to_string(), &class, &say(status.about), &body]);
    }
    text.push('\n');
    section(&mut text, &say("Errors"));
    row(&mut text, &[&say("Status"), &say("Code"), &say("Detail")]);
    row(&mut text, &["---"; 3]);
    for (status, code) in &operation.errors {
        row(&mut text, &[&status.to_string(), &format!("`{code}`"), &locale.detail(code, &operation.body_fields())]);
    }
    text.push('\n');
    section(&mut text, &say("Response headers"));
    let mut told: Vec<(&str, &str)> = Vec::new();
    for (name, kind, about) in operation.statuses.iter().flat_map(|status| &status.headers) {
        if !told.contains(&(name, about)) {
            told.push((name, about));
            let _ = writeln!(text, "- `{name}` ({kind}): {}", say(about));
        }
    }
    text.push('\n');
    text
}

/// `/llms.txt`: what there is, with a line on each.
pub fn contents(locale: Locale) -> String {
    let about = locale.say("Webhooks that arrive: register endpoints, publish events, see every delivery.");
    let mut text = format!("# Aldaba\n\n> {about}\n");
    for (name, concepts) in [("Guides", false), ("Concepts", true)] {
        let _ = writeln!(text, "\n## {}\n", locale.say(name));
        for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) {
            let (title, page, summary) = (guide.title(locale), guide.page(), guide.summary(locale));
            let _ = writeln!(text, "- [{title}]({BASE}{page}.md): {summary}");
        }
    }
    for group in operations::groups() {
        let _ = writeln!(text, "\n## {}\n", locale.say(group.name));
        for operation in group.operations {
            let (title, page) = (locale.say(operation.title), operation.page());
            let _ = writeln!(text, "- [{title}]({BASE}{page}.md): `{} {}`", operation.method, operation.path);
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

fn fields(text: &mut String, below: &[Field], locale: Locale, required: &str, depth: usize) {
    for field in below {
        let indent = "  ".repeat(depth);
        let needed = if field.required { format!(", {required}") } else { String::new() };
        let bounds: Vec<String> = field.bounds.iter().map(|bound| format!(" `{bound}`")).collect();
        let bounds = bounds.concat();
        let about = locale.say(field.about);
        let _ = writeln!(text, "{indent}- `{}` ({}{needed}): {about}{bounds}", field.name, field.kind);
        fields(text, &field.fields, locale, required, depth + 1);
    }
}
