//! A permission's regular expression.

use regex::bytes::Regex;

/// Which names a permission is for. As in RabbitMQ an expression fits anywhere in a name, and a permission's empty one fits the empty
/// name only.
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

    /// Reads an expression in which names in braces, such as `{username}`, stand for others, which are taken as they are.
    pub fn with_names(expression: &[u8], names: &[(&[u8], &[u8])]) -> Pattern {
        let Ok(mut expression) = String::from_utf8(expression.to_vec()) else {
            return Pattern(Kind::Nothing);
        };
        for (name, value) in names {
            let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
                continue;
            };
            expression = expression.replace(&format!("{{{name}}}"), &regex::escape(value));
        }
        Pattern::new(expression.as_bytes())
    }

    /// Reads an expression, if it makes sense.
    pub fn checked(expression: &[u8]) -> Option<Pattern> {
        Some(Pattern(match expression {
            b"" | b"^$" => Kind::TheEmptyName,
            b".*" => Kind::Everything,
            _ => Kind::Fitting(Box::new(Regex::new(std::str::from_utf8(expression).ok()?).ok()?)),
        }))
    }

    /// Reads a policy's expression, of which an empty one fits everything. One that makes no sense fits nothing.
    pub fn of_policy(expression: &[u8]) -> Pattern {
        if expression.is_empty() { Pattern(Kind::Everything) } else { Pattern::new(expression) }
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
    fn names_in_braces_stand_for_others() {
        let names = [(&b"username"[..], &b"a.b"[..]), (b"vhost", b"/")];
        let pattern = Pattern::with_names(b"^{username}\\.x{1,2}\\.{vhost}$", &names);
        assert!(pattern.fits(b"a.b.xx./"));
        assert!(!pattern.fits(b"aXb.xx./"), "a name is no expression");
        assert!(!pattern.fits(b"a.b.xxx./"));
    }

    #[test]
    fn a_policy_without_an_expression_is_for_everything() {
        assert!(Pattern::of_policy(b"").fits(b"q") && !Pattern::of_policy(b"(").fits(b"q"));
        assert!(Pattern::of_policy(b"^a").fits(b"ab") && !Pattern::of_policy(b"^a").fits(b"ba"));
    }

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
