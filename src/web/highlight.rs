//! Colours for code: strings, comments, numbers and the words of a language. Enough for short examples.

use maud::{Markup, html};

/// What a piece of code is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Plain,
    Text,
    Comment,
    Number,
    Word,
}

/// The words that a language knows.
fn words(language: &str) -> &'static [&'static str] {
    match language {
        "python" => &[
            "and", "as", "async", "await", "class", "def", "elif", "else", "except", "False", "for", "from", "global",
            "if", "import", "in", "is", "lambda", "None", "not", "or", "pass", "raise", "return", "True", "try",
            "while", "with",
        ],
        "javascript" => &[
            "async",
            "await",
            "catch",
            "class",
            "const",
            "else",
            "export",
            "false",
            "for",
            "from",
            "function",
            "if",
            "import",
            "let",
            "new",
            "null",
            "of",
            "return",
            "throw",
            "true",
            "try",
            "typeof",
            "undefined",
            "while",
        ],
        "php" => &[
            "array", "as", "echo", "else", "exit", "false", "foreach", "for", "function", "if", "new", "null",
            "return", "static", "true", "while",
        ],
        "rust" => &[
            "as", "async", "await", "const", "else", "enum", "false", "fn", "for", "if", "impl", "in", "let", "loop",
            "match", "mod", "move", "mut", "pub", "return", "self", "static", "struct", "true", "use", "while",
        ],
        "sh" => &["curl", "do", "done", "echo", "else", "export", "fi", "for", "if", "in", "then", "while"],
        "json" => &["false", "null", "true"],
        "toml" => &["false", "true"],
        _ => &[],
    }
}

/// What begins a comment to the end of the line.
fn comment(language: &str) -> Option<&'static str> {
    match language {
        "python" | "sh" | "toml" => Some("#"),
        "javascript" | "php" | "rust" => Some("//"),
        _ => None,
    }
}

fn pieces<'a>(code: &'a str, language: &str) -> Vec<(Piece, &'a str)> {
    let mut pieces = Vec::new();
    let mut rest = code;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let starts_word = !before.is_alphanumeric() && before != '_' && before != '$';
        let is_comment = comment(language).is_some_and(|mark| rest.starts_with(mark)) && before != ':';
        let quotes = if language == "rust" { "\"" } else { "\"'`" };
        let (piece, length) = if is_comment {
            (Piece::Comment, rest.find('\n').unwrap_or(rest.len()))
        } else if language != "text" && quotes.contains(first) {
            (Piece::Text, quoted(rest, first))
        } else if first.is_ascii_digit() && starts_word && language != "sh" {
            (
                Piece::Number,
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(rest.len()),
            )
        } else if first.is_alphabetic() && starts_word {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let known = words(language).contains(&&rest[..length]);
            (if known { Piece::Word } else { Piece::Plain }, length)
        } else {
            (Piece::Plain, first.len_utf8())
        };
        let (taken, left) = rest.split_at(length);
        before = taken.chars().next_back().unwrap_or(' ');
        pieces.push((piece, taken));
        rest = left;
    }
    pieces
}

/// How long the quoted text is that begins here; to the end where it is not closed.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The code as HTML.
pub fn code(code: &str, language: &str) -> Markup {
    html! {
        pre data-language=(language) { code {
            @for (piece, text) in pieces(code, language) {
                @match piece {
                    Piece::Plain => (text),
                    Piece::Text => span.s { (text) },
                    Piece::Comment => span.c { (text) },
                    Piece::Number => span.n { (text) },
                    Piece::Word => span.w { (text) },
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_comments_numbers_and_words_are_told_apart() {
        let found: Vec<_> = pieces("if x == 42: # \"no\"\n  y = \"a#b\"", "python");
        let of = |piece| found.iter().filter(|(p, _)| *p == piece).map(|(_, text)| *text).collect::<Vec<_>>();
        assert_eq!(of(Piece::Word), ["if"]);
        assert_eq!(of(Piece::Number), ["42"]);
        assert_eq!(of(Piece::Comment), ["# \"no\""]);
        assert_eq!(of(Piece::Text), ["\"a#b\""]);
        assert_eq!(of(Piece::Comment).len(), 1);
    }

    proptest! {
        #[test]
        fn no_character_is_lost(text in "\\PC{0,60}", language in 0usize..7) {
            let language = ["python", "javascript", "php", "rust", "sh", "json", "text"][language];
            let again: String = pieces(&text, language).into_iter().map(|(_, text)| text).collect();
            prop_assert_eq!(again, text);
        }
    }
}
