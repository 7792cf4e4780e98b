//! Filling in a template, and writing values so that the reader takes them literally.

use std::path::Path;

/// Replaces each `{{name}}` by its value. A line that is a placeholder alone becomes as many lines
/// as its value has, indented as it was, and disappears with an empty one.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let value = |name: &str| {
        values
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let mut filled = String::with_capacity(template.len());
    for line in template.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let alone = line
            .trim()
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"));
        match alone.filter(|name| !name.contains("{{")) {
            Some(name) => {
                for value_line in value(name).lines() {
                    filled.push_str(indent);
                    filled.push_str(value_line);
                    filled.push('\n');
                }
            }
            None => {
                fill_line(&mut filled, line, &value);
                filled.push('\n');
            }
        }
    }
    filled
}

/// In one pass: what a value holds is never taken for a placeholder.
fn fill_line<'a>(filled: &mut String, mut line: &str, value: &impl Fn(&str) -> &'a str) {
    while let Some((before, rest)) = line.split_once("{{") {
        let Some((name, after)) = rest.split_once("}}") else {
            break;
        };
        filled.push_str(before);
        filled.push_str(value(name));
        line = after;
    }
    filled.push_str(line);
}

/// A text as a YAML scalar: plain where that is beyond doubt, else in double quotes.
pub(super) fn yaml(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    // The URL of a socket is the one text with a colon that is never a mapping's key.
    let body = text.strip_prefix("unix://").unwrap_or(text);
    // Words that YAML 1.1 takes for something else: yes, off, null and their like.
    let word = text.len() <= 5 && text.chars().all(|c| c.is_ascii_alphabetic());
    if starts && body.chars().all(plain) && !word {
        text.to_owned()
    } else {
        // JSON is YAML, but for control characters; no checked value has one.
        serde_json::Value::from(text).to_string()
    }
}

/// A path as a word of a systemd unit (systemd.syntax(7), systemd.unit(5) "Specifiers").
pub(super) fn unit(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%");
    if text.contains(|c: char| c.is_whitespace() || "\"'\\;#".contains(c)) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text
    }
}

/// The same as an argument of `ExecStart=`, where `$` begins a variable.
pub(super) fn unit_argument(path: &Path) -> String {
    unit(path).replace('$', "$$")
}

/// A path as a word of a shell command.
pub(super) fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-@+".contains(c))
    {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_placeholder_grow_and_disappear() {
        let values = [
            ("a", "1\n2".to_owned()),
            ("none", String::new()),
            ("b", "{{a}}".to_owned()),
        ];
        assert_eq!(
            fill("x\n  {{a}}\n{{none}}\ny={{b}} {{none}}z\n", &values),
            "x\n  1\n  2\ny={{a}} z\n"
        );
    }

    #[test]
    fn yaml_scalars_come_back_as_they_went() {
        for text in [
            "secrets",
            "yes",
            "No",
            "null",
            "*.*",
            "7",
            "1e3",
            "~",
            "a b",
            "a: b",
            "a #b",
            "é",
            "",
            "unix:///run/claviger/kms.sock",
            "/var/lib/claviger",
            "-",
            "\"",
            "claviger",
        ] {
            let read: Vec<String> = serde_saphyr::from_str(&format!("- {}\n", yaml(text))).unwrap();
            assert_eq!(read, [text], "{}", yaml(text));
        }
        assert_eq!(
            yaml("unix:///run/claviger/kms.sock"),
            "unix:///run/claviger/kms.sock"
        );
        assert_eq!(yaml("yes"), "\"yes\"");
    }

    #[test]
    fn words_of_units_and_shells_are_taken_literally() {
        assert_eq!(unit(Path::new("/a/b.key")), "/a/b.key");
        assert_eq!(unit(Path::new("/a b%i\"")), "\"/a b%%i\\\"\"");
        assert_eq!(unit_argument(Path::new("/$a")), "/$$a");
        assert_eq!(shell(Path::new("/a/b.key")), "/a/b.key");
        assert_eq!(shell(Path::new("/a'b")), r"'/a'\''b'");
    }
}
