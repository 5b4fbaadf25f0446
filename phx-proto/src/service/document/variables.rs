//! Variables `${NAME}` and `${NAME:-default}` inside strings.

/// Replaces the variables in `text` by their values.
///
/// `$${` stands for a literal `${`. Variables inside a value are not replaced. A variable that is
/// unset or empty is replaced by its default. If it has none, that is an error, because an empty
/// token is never intended.
pub(super) fn fill(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, VariableProblem> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &reference[2..];
            continue;
        }
        filled.push_str(before);
        let end = reference.find('}').ok_or(VariableProblem::Unclosed)?;
        let inside = &reference[2..end];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(VariableProblem::NotAName);
        }
        let value = lookup(name);
        match (value.as_deref(), default) {
            (Some(value), _) if !value.is_empty() => filled.push_str(value),
            (_, Some(default)) => filled.push_str(default),
            (Some(_), None) => return Err(VariableProblem::Empty { name: name.to_owned() }),
            (None, None) => return Err(VariableProblem::Missing { name: name.to_owned() }),
        }
        rest = &reference[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The problem with a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VariableProblem {
    Missing { name: String },
    Empty { name: String },
    Unclosed,
    NotAName,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, VariableProblem> {
        fill(text, &|name| match name {
            "HOST" => Some("example.com".into()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".into()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_replaced_once() {
        assert_eq!(filled("wss://${HOST}/x").unwrap(), "wss://example.com/x");
        assert_eq!(filled("${HOST}${HOST}").unwrap(), "example.comexample.com");
        assert_eq!(filled("${TRICK}").unwrap(), "${HOST}");
        assert_eq!(filled("no $ here { } $").unwrap(), "no $ here { } $");
    }

    #[test]
    fn default_replaces_missing_or_empty_variable() {
        assert_eq!(filled("${NONE:-a}").unwrap(), "a");
        assert_eq!(filled("${EMPTY:-a}").unwrap(), "a");
        assert_eq!(filled("${NONE:-}").unwrap(), "");
        assert_eq!(filled("${HOST:-a}").unwrap(), "example.com");
    }

    #[test]
    fn variable_without_default_is_required() {
        assert_eq!(filled("${NONE}"), Err(VariableProblem::Missing { name: "NONE".into() }));
        assert_eq!(filled("${EMPTY}"), Err(VariableProblem::Empty { name: "EMPTY".into() }));
    }

    #[test]
    fn doubled_dollar_escapes() {
        assert_eq!(filled("$${HOST}").unwrap(), "${HOST}");
        assert_eq!(filled("a$${b").unwrap(), "a${b");
        assert_eq!(filled("$$").unwrap(), "$$");
    }

    #[test]
    fn invalid_reference_is_an_error() {
        assert_eq!(filled("${HOST"), Err(VariableProblem::Unclosed));
        for text in ["${}", "${1A}", "${A B}", "${A-b}", "${:-x}"] {
            assert_eq!(filled(text), Err(VariableProblem::NotAName), "{text}");
        }
    }
}
