//! Markdown to HTML: headings that can be linked to, code with colours, no raw HTML.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::highlight;
use super::operations::slug;

/// A text as HTML. `link` says where a link that is written in the text leads.
pub fn render(markdown: &str, link: &dyn Fn(&str) -> String) -> Markup {
    let mut events = Vec::new();
    let mut code: Option<(String, String)> = None;
    let mut heading: Option<(HeadingLevel, String, Vec<Event<'_>>)> = None;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match &kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                code = Some((info, String::new()));
            }
            Event::Text(text) if code.is_some() => {
                if let Some((_, content)) = &mut code {
                    content.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((info, content)) = code.take() {
                    events.push(Event::Html(block(&info, &content).into()));
                }
            }
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new(), Vec::new())),
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, text, inner)) = heading.take() {
                    let id = slug_of_heading(&text);
                    events
                        .push(Event::Html(format!("<{level} id=\"{id}\"><a class=\"anchor\" href=\"#{id}\">").into()));
                    events.extend(inner);
                    events.push(Event::Html(format!("</a></{level}>\n").into()));
                }
            }
            // Comments and other raw HTML are not shown.
            Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => {}
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                events.push(Event::Start(Tag::Link { link_type, dest_url: link(&dest_url).into(), title, id }));
            }
            Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
                events.push(Event::Start(Tag::Image { link_type, dest_url: link(&dest_url).into(), title, id }));
            }
            other => match &mut heading {
                Some((_, text, inner)) => {
                    if let Event::Text(part) | Event::Code(part) = &other {
                        text.push_str(part);
                    }
                    inner.push(other);
                }
                None => events.push(other),
            },
        }
    }
    let mut text = String::new();
    html::push_html(&mut text, events.into_iter());
    PreEscaped(text)
}

/// A sentence of the reference, in which only code and emphasis are marked.
pub fn sentence(markdown: &str) -> Markup {
    let PreEscaped(text) = render(markdown, &str::to_owned);
    let text = text.trim();
    let inner = text.strip_prefix("<p>").and_then(|text| text.strip_suffix("</p>"));
    PreEscaped(inner.filter(|inner| !inner.contains("<p>")).unwrap_or(text).to_owned())
}

/// A fenced block; its second word is the name of the file that it stands for.
fn block(info: &str, content: &str) -> String {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or("text");
    let PreEscaped(code) = highlight::code(content.trim_end(), language);
    match words.next().filter(|name| name.contains('.')) {
        Some(name) => {
            let maud::PreEscaped(name) = maud::html! { p.file { (name) } };
            format!("{name}{code}\n")
        }
        None => format!("{code}\n"),
    }
}

fn slug_of_heading(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
    slug(&kept.to_lowercase())
}
