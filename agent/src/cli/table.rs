//! Tables on the terminal: plain columns, numbers to the right, units that fit the eye.

use comfy_table::{Cell as TableCell, CellAlignment, ContentArrangement, Table, presets};

use crate::aggregate::lost::Lost;

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    align: CellAlignment,
}

impl Cell {
    /// A word, to the left.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), align: CellAlignment::Left }
    }

    /// A ready-made figure, to the right.
    pub fn right(text: impl Into<String>) -> Self {
        Self { text: text.into(), align: CellAlignment::Right }
    }

    /// A whole number, to the right, in groups of three.
    pub fn number(n: impl Into<u64>) -> Self {
        Self::right(grouped(n.into()))
    }

    /// A figure that may be unknown: then a dash, never 0.
    pub fn maybe(text: Option<String>) -> Self {
        Self::right(text.unwrap_or_else(|| "–".to_owned()))
    }
}

/// A table without frames.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Table {
    let rows: Vec<Vec<Cell>> = rows.into_iter().collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let align = |i: usize| rows.first().and_then(|r| r.get(i)).map_or(CellAlignment::Left, |c| c.align);
    table.set_header(head.iter().enumerate().map(|(i, h)| TableCell::new(h.to_uppercase()).set_alignment(align(i))));
    for row in &rows {
        table.add_row(row.iter().map(|c| TableCell::new(&c.text).set_alignment(c.align)));
    }
    table
}

/// Says what was lost, if anything was.
pub fn losses(out: &mut impl std::io::Write, lost: &Lost) -> anyhow::Result<()> {
    for (reason, count) in lost.by_reason() {
        if count > 0 {
            writeln!(out, "lost: {reason} {}", grouped(count))?;
        }
    }
    Ok(())
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with a unit, three digits that count.
pub fn nanos(ns: u64) -> String {
    scaled(ns, &[(1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s")])
}

/// Bytes with a unit, three digits that count.
pub fn bytes(n: u64) -> String {
    scaled(n, &[(1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB")])
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(value: u64, units: &[(u64, &str)]) -> String {
    let (size, name) = units.iter().rev().find(|(size, _)| value >= *size).unwrap_or(&units[0]);
    if *size == 1 {
        return format!("{value} {name}");
    }
    let scaled = value as f64 / *size as f64;
    let digits = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
    format!("{scaled:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits_that_count() {
        assert_eq!(nanos(999), "999 ns");
        assert_eq!(nanos(20_000_000), "20.0 ms");
        assert_eq!(nanos(1_234), "1.23 µs");
        assert_eq!(bytes(262_144), "256 KiB");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(grouped(12), "12");
    }
}
