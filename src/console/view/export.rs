//! What is shown, as a file: the same rows in the same order.

use serde_json::{Map, Value, json};

use crate::text::safe;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A list of objects.
    Json,
    /// RFC 4180.
    Csv,
    /// A table.
    Markdown,
}

impl Format {
    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "md" => Some(Format::Markdown),
            _ => None,
        }
    }
}

/// Rows as text; the first one names the columns.
pub fn render(table: &[Vec<String>], format: Format) -> String {
    let Some((names, rows)) = table.split_first() else { return String::new() };
    match format {
        Format::Json => {
            let rows: Vec<Value> = rows
                .iter()
                .map(|row| Value::Object(names.iter().cloned().zip(row.iter().map(|cell| json!(cell))).collect::<Map<_, _>>()))
                .collect();
            let document = json!({"schema_version": "ofs.export.v1", "rows": rows});
            serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
        }
        Format::Csv => table.iter().map(|row| row.iter().map(|cell| csv(cell)).collect::<Vec<_>>().join(",") + "\r\n").collect(),
        Format::Markdown => {
            let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
            let shown = |row: &Vec<String>| line(row.iter().map(|cell| safe(cell).replace('|', "\\|")).collect());
            let rule = line(names.iter().map(|_| "---".to_owned()).collect());
            std::iter::once(shown(names)).chain([rule]).chain(rows.iter().map(shown)).collect()
        }
    }
}

/// A cell that a spreadsheet takes for text, whatever it begins with.
fn csv(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err() && cell != "-";
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_in_every_format() {
        let table = [vec!["a".to_owned(), "b".into()], vec!["x,\"y".into(), "=1+1".into()], vec!["p|q\u{1b}".into(), "-".into()]];
        assert_eq!(render(&table, Format::Csv), "a,b\r\n\"x,\"\"y\",'=1+1\r\np|q\u{1b},-\r\n");
        assert_eq!(render(&table, Format::Markdown), "| a | b |\n| --- | --- |\n| x,\"y | =1+1 |\n| p\\|q\\u{1b} | - |\n");
        let document: Value = serde_json::from_str(&render(&table, Format::Json)).unwrap();
        assert_eq!(document["rows"], json!([{"a": "x,\"y", "b": "=1+1"}, {"a": "p|q\u{1b}", "b": "-"}]));
        assert_eq!(render(&[], Format::Csv), "");
    }
}
