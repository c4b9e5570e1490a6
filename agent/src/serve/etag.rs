//! Generations as entity tags: what a caller has, and what he means to change. Strong or weak, a generation is a generation.

use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::serve::problem::Refusal;
use crate::units::Generation;

/// The tag of a generation.
pub fn tag(generation: Generation) -> HeaderValue {
    HeaderValue::from_str(&text(generation)).expect("a number in quotes is a valid header")
}

/// Generations that a caller names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known(Vec<String>);

impl Known {
    /// From `If-None-Match`.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(tags(headers, &IF_NONE_MATCH))
    }

    /// Whether it names `generation`, not counting a star.
    pub fn names(&self, generation: Generation) -> bool {
        self.0.contains(&text(generation))
    }

    /// Whether it holds `generation`.
    pub fn holds(&self, generation: Generation) -> bool {
        self.names(generation) || self.0.iter().any(|tag| tag == "*")
    }
}

/// Whether the caller's `If-Match`, if he sent one, still holds.
pub fn check_unchanged(headers: &HeaderMap, generation: Generation) -> Result<(), Refusal> {
    let wanted = Known(tags(headers, &IF_MATCH));
    if !headers.contains_key(IF_MATCH) || wanted.holds(generation) {
        return Ok(());
    }
    let detail = format!("the settings are generation {}, not {}", generation.0, wanted.0.join(", "));
    let fix = "look at the newest settings, and send their ETag or no If-Match";
    Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "generation-changed", detail, fix))
}

fn text(generation: Generation) -> String {
    format!("\"{}\"", generation.0)
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    listed(headers, name).map(|tag| tag.trim_start_matches("W/").to_owned()).collect()
}

/// The members of a list that a header may hold, over all its lines.
pub fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_change_is_refused_when_another_generation_was_meant() {
        let check = |value: &str| check_unchanged(&sent(IF_MATCH, value), Generation(7));
        assert!(check_unchanged(&HeaderMap::new(), Generation(7)).is_ok());
        for good in ["\"7\"", "*", "\"6\", W/\"7\""] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["\"6\"", "7", "", "\"77\""] {
            let refusal = check(bad).unwrap_err();
            assert_eq!((refusal.status(), refusal.code()), (StatusCode::PRECONDITION_FAILED, "generation-changed"));
        }
    }

    #[test]
    fn what_a_caller_has_is_a_list_of_tags_or_anything() {
        let known = Known::of(&sent(IF_NONE_MATCH, "\"1\", W/\"3\""));
        assert!(known.holds(Generation(3)) && known.names(Generation(1)) && !known.holds(Generation(2)));
        let any = Known::of(&sent(IF_NONE_MATCH, "*"));
        assert!(any.holds(Generation(9)) && !any.names(Generation(9)));
    }
}
