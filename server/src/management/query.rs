//! What a list is asked for: which columns, in which order, which page of it.

use regex::Regex;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use crate::limits::{HTTP_ANSWER_BYTES_MAX, MANAGEMENT_PAGE_MAX};

/// A page of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Counted from one.
    pub number: usize,
    /// Objects on it.
    pub size: usize,
}

/// Which names are wanted.
#[derive(Clone, Debug)]
enum Names {
    Containing(String),
    Matching(Box<Regex>),
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    parameters: Vec<(String, String)>,
    columns: Vec<Vec<String>>,
    sort: Vec<String>,
    is_reversed: bool,
    page: Option<Page>,
    names: Option<Names>,
}

/// Undoes the percent signs of a path's or a query's part. Whatever follows one that is no number stays as it is.
pub fn unquote(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) if plus_is_space => plain.push(b' '),
            (byte, _, _) => plain.push(*byte),
        }
        at += 1;
    }
    plain
}

fn path_of(column: &str) -> Vec<String> {
    column.split('.').map(str::to_owned).collect()
}

fn find<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

impl Query {
    /// Reads a query.
    pub fn read(raw: &str) -> Result<Query, Problem> {
        let mut query = Query::default();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let plain = |text: &str| String::from_utf8_lossy(&unquote(text.as_bytes(), true)).into_owned();
            query.parameters.push((plain(name), plain(value)));
        }
        let columns = query.get("columns").unwrap_or_default();
        query.columns = columns.split(',').filter(|column| !column.is_empty()).map(path_of).collect();
        query.sort = query.get("sort").filter(|sort| !sort.is_empty()).map(path_of).unwrap_or_default();
        query.is_reversed = query.is_set("sort_reverse");
        query.page = query.read_page()?;
        if query.page.is_some() {
            query.names = query.read_names()?;
        }
        Ok(query)
    }

    fn read_page(&self) -> Result<Option<Page>, Problem> {
        let Some(page) = self.get("page") else { return Ok(None) };
        let size = self.get("page_size").unwrap_or("100");
        let wrong = || Problem::bad("Pagination parameters are invalid");
        let number: usize = page.parse().map_err(|_| wrong())?;
        let size: usize = size.parse().map_err(|_| wrong())?;
        if number == 0 || size == 0 || size > MANAGEMENT_PAGE_MAX {
            return Err(Problem::bad_as(
                "invalid_pagination_parameters",
                format!("Invalid pagination parameters: page number {number}, page size {size}"),
            ));
        }
        Ok(Some(Page { number, size }))
    }

    fn read_names(&self) -> Result<Option<Names>, Problem> {
        let Some(name) = self.get("name").filter(|name| !name.is_empty()) else { return Ok(None) };
        if !self.is_set("use_regex") {
            return Ok(Some(Names::Containing(name.to_lowercase())));
        }
        let regex = Regex::new(&format!("(?i){name}"));
        Ok(Some(Names::Matching(Box::new(
            regex.map_err(|_| Problem::bad("Pagination parameters are invalid"))?,
        ))))
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Whether a parameter says yes.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Which page is wanted.
    pub fn page(&self) -> Option<Page> {
        self.page
    }

    /// Whether every object has to be looked at before it is known which come first.
    pub fn is_sorted(&self) -> bool {
        !self.sort.is_empty()
    }

    /// Whether objects of that name are wanted.
    pub fn wants(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        match &self.names {
            None => true,
            Some(Names::Containing(part)) => name.to_lowercase().contains(part),
            Some(Names::Matching(regex)) => regex.is_match(&name),
        }
    }

    /// What of an object is wanted.
    pub fn cut(&self, value: &Value) -> String {
        if self.columns.is_empty() {
            return value.to_string();
        }
        let mut wanted = Map::new();
        for path in &self.columns {
            let (Some(found), Some((last, names))) = (find(value, path), path.split_last()) else { continue };
            let inner = names.iter().try_fold(&mut wanted, |object, name| {
                object.entry(name).or_insert_with(|| json!({})).as_object_mut()
            });
            if let Some(inner) = inner {
                inner.insert(last.clone(), found.clone());
            }
        }
        Value::Object(wanted).to_string()
    }
}

/// What an object is sorted by: nothing comes first, then truths, numbers, texts, the rest.
#[derive(Clone, PartialEq, PartialOrd, Debug)]
enum Key {
    None,
    Flag(bool),
    Number(f64),
    Text(String),
    Other(String),
}

impl Key {
    fn of(value: Option<&Value>) -> Key {
        match value {
            None | Some(Value::Null) => Key::None,
            Some(Value::Bool(flag)) => Key::Flag(*flag),
            Some(Value::Number(number)) => Key::Number(number.as_f64().unwrap_or(0.0)),
            Some(Value::String(text)) => Key::Text(text.clone()),
            Some(other) => Key::Other(other.to_string()),
        }
    }
}

/// A list that is being written. Of each object only what is wanted is kept, as text.
#[derive(Debug)]
pub struct Listing<'q> {
    query: &'q Query,
    /// Objects that there are, and those of them whose name is wanted.
    total: usize,
    filtered: usize,
    rows: Vec<(Key, String)>,
    bytes: usize,
}

impl<'q> Listing<'q> {
    /// A list of so many objects, of which so many have a name that is wanted.
    pub fn new(query: &'q Query, total: usize, filtered: usize) -> Listing<'q> {
        Listing { query, total, filtered, rows: Vec::new(), bytes: 0 }
    }

    /// Adds an object.
    pub fn push(&mut self, value: &Value) -> Result<(), Problem> {
        let key = if self.query.is_sorted() { Key::of(find(value, &self.query.sort)) } else { Key::None };
        let row = self.query.cut(value);
        self.bytes += row.len() + 1;
        if self.bytes > HTTP_ANSWER_BYTES_MAX {
            return Err(Problem::bad("the list is too long: ask for a page of it"));
        }
        self.rows.push((key, row));
        Ok(())
    }

    /// The body of the answer. `is_cut`: only the objects of the page were added, in the order wanted.
    pub fn finish(mut self, is_cut: bool) -> Result<String, Problem> {
        if self.query.is_sorted() {
            self.rows
                .sort_by(|(one, _), (other, _)| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
            if self.query.is_reversed {
                self.rows.reverse();
            }
        }
        let Some(Page { number, size }) = self.query.page else {
            return Ok(format!("[{}]", join(&self.rows)));
        };
        check_page(Page { number, size }, self.filtered)?;
        let rows = if is_cut {
            &self.rows[..]
        } else {
            let start = ((number - 1) * size).min(self.rows.len());
            let end = (start + size).min(self.rows.len());
            self.rows.get(start..end).unwrap_or_default()
        };
        Ok(format!(
            r#"{{"total_count":{},"item_count":{},"filtered_count":{},"page":{number},"page_size":{size},"page_count":{},"items":[{}]}}"#,
            self.total,
            rows.len(),
            self.filtered,
            self.filtered.div_ceil(size),
            join(rows)
        ))
    }
}

/// Whether there is such a page of so many objects.
pub fn check_page(page: Page, count: usize) -> Result<(), Problem> {
    let Page { number, size } = page;
    if number > 1 && (number - 1).saturating_mul(size) >= count {
        return Err(Problem::bad_as(
            "page_out_of_range",
            format!("Page out of range, page: {number} page size: {size}, len: {count}"),
        ));
    }
    Ok(())
}

fn join(rows: &[(Key, String)]) -> String {
    let mut text = String::with_capacity(rows.iter().map(|(_, row)| row.len() + 1).sum());
    for (place, (_, row)) in rows.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str, values: &[Value]) -> Result<String, Problem> {
        let query = Query::read(query)?;
        let name = |value: &Value| value["name"].as_str().unwrap().as_bytes().to_vec();
        let wanted: Vec<_> = values.iter().filter(|value| query.wants(&name(value))).collect();
        let mut listing = Listing::new(&query, values.len(), wanted.len());
        for value in wanted {
            listing.push(value)?;
        }
        listing.finish(false)
    }

    #[test]
    fn columns_order_and_pages_are_as_asked() {
        let values = [
            json!({"name": "b", "n": 10, "a": {"x": 1, "y": 2}}),
            json!({"name": "a", "n": 9, "a": {}}),
            json!({"name": "Ab", "n": 11}),
        ];
        assert_eq!(
            list("columns=name&sort=n", &values).unwrap(),
            r#"[{"name":"a"},{"name":"b"},{"name":"Ab"}]"#
        );
        let sorted = list("columns=n,a.x&sort=a.x&sort_reverse=true", &values).unwrap();
        assert_eq!(sorted, r#"[{"a":{"x":1},"n":10},{"n":11},{"n":9}]"#);
        let page = list("columns=name&page=2&page_size=2&sort=n", &values).unwrap();
        let expected = r#"{"total_count":3,"item_count":1,"filtered_count":3,"page":2,"page_size":2,"page_count":2,"items":[{"name":"Ab"}]}"#;
        assert_eq!(page, expected);
        let named = list("columns=name&page=1&name=a", &values).unwrap();
        assert!(
            named.contains(r#""filtered_count":2"#) && named.contains(r#"[{"name":"a"},{"name":"Ab"}]"#),
            "{named}"
        );
        let matched = list("columns=name&page=1&name=%5Ea.%2B&use_regex=true", &values).unwrap();
        assert!(matched.contains(r#""items":[{"name":"Ab"}]"#), "{matched}");
    }

    #[test]
    fn pages_that_cannot_be_are_refused() {
        for (query, error) in [
            ("page=9&page_size=1", "page_out_of_range"),
            ("page=x", "bad_request"),
            ("page=1&page_size=501", "invalid_pagination_parameters"),
            ("page=0", "invalid_pagination_parameters"),
            ("page=1&name=(&use_regex=true", "bad_request"),
        ] {
            assert_eq!(list(query, &[json!({"name": "x"})]).unwrap_err().error, error, "{query}");
        }
        assert!(list("page=1", &[]).is_ok());
    }

    #[test]
    fn percent_signs_are_undone() {
        assert_eq!(unquote(b"a%2Fb+%zz%4", false), b"a/b+%zz%4");
        assert_eq!(unquote(b"a+b%2B", true), b"a b+");
    }
}
