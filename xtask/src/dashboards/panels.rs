//! The expressions of a Grafana dashboard, each with the title of its panel. Takes JSON of any shape; never fails.

use serde_json::Value;

/// A PromQL expression and where it stands.
pub(crate) struct Expression {
    pub(crate) panel: String,
    pub(crate) text: String,
}

/// Every `expr` of a panel's target and every `query` of a variable.
pub(crate) fn expressions(dashboard: &Value) -> Vec<Expression> {
    let mut found = Vec::new();
    descend(dashboard, "dashboard", &mut found);
    found
}

fn descend(value: &Value, panel: &str, found: &mut Vec<Expression>) {
    match value {
        Value::Object(fields) => {
            let title = fields.get("title").or_else(|| fields.get("name")).and_then(Value::as_str).unwrap_or(panel);
            for (key, inner) in fields {
                match (key.as_str(), inner) {
                    ("expr" | "query" | "definition", Value::String(text)) => {
                        found.push(Expression { panel: title.to_owned(), text: text.clone() });
                    }
                    _ => descend(inner, title, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| descend(item, panel, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_found_in_rows_and_variables() {
        let dashboard = serde_json::json!({
            "panels": [{"type": "row", "title": "r", "panels": [{"title": "Rate", "targets": [{"expr": "a"}]}]}],
            "templating": {"list": [{"name": "pipeline", "query": {"query": "label_values(b, pipeline)"}}]},
        });
        let found: Vec<_> = expressions(&dashboard).into_iter().map(|e| (e.panel, e.text)).collect();
        assert!(found.contains(&("Rate".to_owned(), "a".to_owned())));
        assert!(found.contains(&("pipeline".to_owned(), "label_values(b, pipeline)".to_owned())));
    }
}
