//! A delivery's request as a command for a shell.

/// The longest body that is an argument: Linux takes 128 KiB in one.
const MAX_ARGUMENT: usize = 100_000;

/// A curl command that sends the body to the URL with these headers, for a POSIX shell.
///
/// Pasted into a terminal it does that and nothing else: everything is quoted, nothing is read from files, brackets in
/// the URL are no patterns, and no control character but a line break comes to the terminal.
pub fn curl(url: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut lines = vec![format!("curl --globoff --request POST --url {}", quoted(url))];
    lines.extend(headers.iter().map(|(name, value)| format!("--header {}", quoted(&header(name, value)))));
    if body.len() <= MAX_ARGUMENT && !body.contains(dangerous) {
        lines.push(format!("--data-raw {}", quoted(body)));
        lines.join(" \\\n  ")
    } else {
        // `printf` is part of the shell: it takes a body of any length, and writes every byte from a name for it.
        lines.push("--data-binary @-".to_owned());
        format!("printf {} | {}", printed(body), lines.join(" \\\n  "))
    }
}

/// A header as curl takes it: one without a value ends with a semicolon.
fn header(name: &str, value: &str) -> String {
    if value.trim().is_empty() { format!("{name};") } else { format!("{name}: {value}") }
}

/// Text in single quotes, within which a shell reads nothing but the end. Control characters, which no URL and no
/// header has, are left out.
fn quoted(text: &str) -> String {
    let text: String = text.chars().filter(|c| !dangerous(*c)).collect();
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The format of which `printf` makes the text.
fn printed(text: &str) -> String {
    let mut format = String::with_capacity(text.len() + 2);
    for (at, c) in text.chars().enumerate() {
        match c {
            // It would be an option.
            '-' if at == 0 => format.push_str(r"\055"),
            '\'' => format.push_str(r"'\''"),
            '\\' => format.push_str(r"\\"),
            '%' => format.push_str("%%"),
            c if dangerous(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    format.push_str(&format!("\\{byte:03o}"));
                }
            }
            c => format.push(c),
        }
    }
    format!("'{format}'")
}

/// What a terminal acts on when it is pasted.
fn dangerous(c: char) -> bool {
    c.is_control() && c != '\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell makes of a word.
    fn unquoted(word: &str) -> String {
        word.split(r"'\''").map(|part| part.trim_matches('\'')).collect::<Vec<_>>().join("'")
    }

    #[test]
    fn a_command_repeats_the_request() {
        let headers = [("content-type", "application/json"), ("x-empty", "")];
        assert_eq!(
            curl("https://example.com/hooks?a=1&b=[2]", &headers, r#"{"n": 1}"#),
            "curl --globoff --request POST --url 'https://example.com/hooks?a=1&b=[2]' \\\n  \
             --header 'content-type: application/json' \\\n  --header 'x-empty;' \\\n  --data-raw '{\"n\": 1}'"
        );
    }

    #[test]
    fn nothing_leaves_its_quotes() {
        for hostile in ["'; rm -rf / #", "$(id) `id` ${x} \\ ! *", "''", "'\\''", "a\nb", "-o /etc/passwd", "\"'\""] {
            assert_eq!(unquoted(&quoted(hostile)), hostile);
            let command = curl(hostile, &[("x", hostile)], hostile);
            let word = quoted(hostile);
            assert!(command.contains(&format!("--url {word} ")), "{command}");
            assert!(command.contains(&format!("--header {} ", quoted(&format!("x: {hostile}")))), "{command}");
            assert!(command.ends_with(&format!("--data-raw {word}")), "{command}");
        }
    }

    #[test]
    fn a_body_that_begins_with_an_at_sign_names_no_file() {
        assert!(curl("https://example.com/", &[], "@/etc/passwd").ends_with("--data-raw '@/etc/passwd'"));
    }

    #[test]
    fn no_control_character_comes_to_the_terminal() {
        let command =
            curl("https://example.com/\u{1b}[2J", &[("x", "a\rb\u{3}")], "50%\t'\\'\u{1b}[201~\r\u{7f}\u{9b}\n");
        assert!(!command.contains(dangerous), "{command:?}");
        assert!(command.contains("'https://example.com/[2J'") && command.contains("'x: ab'"));
        assert!(command.starts_with(r"printf '50%%\011'\''\\'\''\033[201~\015\177\302\233"), "{command}");
        assert!(command.contains("\n' | curl ") && command.ends_with("--data-binary @-"), "{command}");
    }

    #[test]
    fn a_format_is_no_option() {
        assert_eq!(printed("-v x-y"), r"'\055v x-y'");
    }

    #[test]
    fn a_body_too_long_for_an_argument_is_piped() {
        let command = curl("https://example.com/", &[], &"a".repeat(MAX_ARGUMENT + 1));
        assert!(command.starts_with("printf 'aaa") && command.ends_with("--data-binary @-"));
    }
}
