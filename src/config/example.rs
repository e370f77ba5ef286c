//! A settings file with every setting commented out: `aldaba settings --example`. Packages install it.

use super::table::{ANY_BUCKET, SETTINGS, Setting, Value};
use crate::api::Bucket;

/// Longest line of a comment, in characters: it fits an editor beside another window.
const COMMENT_WIDTH: usize = 100;

const INTRODUCTION: &str = "\
# Settings of Aldaba.
#
# Every setting is below with its meaning, its values and its default. A line that begins with `#` and a name is
# commented out: the default applies. The environment replaces what this file says: `webhooks.timeout` is
# ALDABA_WEBHOOKS__TIMEOUT. An unknown or invalid setting stops the start.
";

/// The file.
pub fn example() -> String {
    let mut file = String::from(INTRODUCTION);
    for setting in SETTINGS {
        file.push('\n');
        push_comment(&mut file, setting.meaning);
        push_comment(&mut file, &format!("Value: {}", setting.value.allowed()));
        for name in names(setting) {
            // An empty text means the same as no setting.
            let quote = if matches!(setting.value, Value::Number { .. }) { "" } else { "\"" };
            file.push_str(&format!("#{name} = {quote}{}{quote}\n", setting.default));
        }
    }
    file
}

/// The name of a setting, or those of all buckets that have no row of their own.
fn names(setting: &Setting) -> Vec<String> {
    if setting.name != ANY_BUCKET {
        return vec![setting.name.to_owned()];
    }
    let names = Bucket::ALL.iter().map(|bucket| format!("rate_limits.{}", bucket.name()));
    names.filter(|name| SETTINGS.iter().all(|setting| setting.name != name)).collect()
}

/// Adds a text as comments, broken between words.
fn push_comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
            file.push_str(&line);
            file.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    file.push_str(&line);
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_setting_of_the_example_can_be_uncommented() {
        let is_setting = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
        let text = example();
        let lines = text.lines().map(|line| line.strip_prefix('#').filter(is_setting).unwrap_or(line));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), lines.collect::<Vec<_>>().join("\n")).expect("written");
        assert_eq!(Config::load(Some(file.path()), [], []).err().map(|error| error.to_string()), None);
        let settings = text.lines().filter_map(|line| line.strip_prefix('#')).filter(is_setting).count();
        let own_rows = SETTINGS.iter().filter(|setting| setting.name.starts_with("rate_limits.")).count() - 1;
        assert_eq!(settings, SETTINGS.len() - 1 - own_rows + Bucket::ALL.len());
    }
}
