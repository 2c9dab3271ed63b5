//! A permission's regular expression.

use regex::bytes::Regex;

/// Which names a permission is for. As in RabbitMQ an expression fits anywhere in a name, and an empty one fits the empty name only.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Everything,
    TheEmptyName,
    Nothing,
    Fitting(Box<Regex>),
}

impl Pattern {
    /// Reads an expression. One that makes no sense fits nothing.
    pub fn new(expression: &[u8]) -> Pattern {
        Pattern::checked(expression).unwrap_or(Pattern(Kind::Nothing))
    }

    /// Reads an expression, if it makes sense.
    pub fn checked(expression: &[u8]) -> Option<Pattern> {
        Some(Pattern(match expression {
            b"" | b"^$" => Kind::TheEmptyName,
            b".*" => Kind::Everything,
            _ => Kind::Fitting(Box::new(Regex::new(std::str::from_utf8(expression).ok()?).ok()?)),
        }))
    }

    /// Whether it is for this name.
    pub fn fits(&self, name: &[u8]) -> bool {
        match &self.0 {
            Kind::Everything => true,
            Kind::TheEmptyName => name.is_empty(),
            Kind::Nothing => false,
            Kind::Fitting(regex) => regex.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_fit_as_in_rabbitmq() {
        for (expression, name, fits) in [
            (".*", "q", true),
            ("", "q", false),
            ("", "", true),
            ("^$", "q", false),
            ("a", "xay", true),
            ("^a$", "xay", false),
            ("^(a|b)\\.", "b.c", true),
            ("(", "(", false),
        ] {
            assert_eq!(
                Pattern::new(expression.as_bytes()).fits(name.as_bytes()),
                fits,
                "{expression} {name}"
            );
        }
    }
}
