//! Flushes into a table of PostgreSQL: one statement and so one transaction a flush, committed when this returns, by the
//! server's own rules of what committed means. A flush that is tried again after its commit was lost on the way stands in
//! the table twice; nothing is ever taken back.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::Type;
use postgres::{Client, Statement};
use tidegate_client::Nanos;

use super::{Flush, Insertion, Opening};
use crate::servers::contact::PostgresAt;
use crate::wire::RecordView;

/// A connection and the statement that it sends.
pub(crate) struct PostgresOutlet {
    client: Client,
    way: Way,
}

enum Way {
    /// Prepared once, so that a flush takes no more round trips than it must.
    Copy(Statement),
    /// The head of the statement, and room for all of it: its length differs each time, so there is nothing to prepare.
    Insert { head: String, text: String },
}

impl PostgresOutlet {
    pub(super) fn open(at: &PostgresAt, how: Insertion, name: &str, opening: Opening, patience: Nanos) -> Result<Self> {
        let mut client = at.connect_patiently(patience)?;
        let table = table_of(name);
        if opening == Opening::Fresh {
            // Only the laboratory names a table like this.
            let create = format!(
                "SET client_min_messages = warning; DROP TABLE IF EXISTS {table}; \
                 CREATE TABLE {table} (scheduled_ns bigint, sequence bigint, payload bytea)"
            );
            client.batch_execute(&create).with_context(|| format!("make the table {table}"))?;
        }
        let way = match how {
            Insertion::Copy => {
                let copy = format!("COPY {table} FROM STDIN (FORMAT binary)");
                Way::Copy(client.prepare(&copy).with_context(|| format!("prepare to copy into {table}"))?)
            }
            Insertion::Insert => Way::Insert { head: format!("INSERT INTO {table} VALUES "), text: String::new() },
        };
        Ok(Self { client, way })
    }

    pub(super) fn flush(&mut self, flush: &Flush<'_>) -> Result<u64> {
        match &mut self.way {
            Way::Copy(statement) => copy(&mut self.client, statement, flush),
            Way::Insert { head, text } => insert(&mut self.client, head, text, flush),
        }
    }
}

fn copy(client: &mut Client, statement: &Statement, flush: &Flush<'_>) -> Result<u64> {
    let writer = client.copy_in(statement).context("begin to copy")?;
    let mut rows = BinaryCopyInWriter::new(writer, &[Type::INT8, Type::INT8, Type::BYTEA]);
    let mut bytes = 0;
    for record in flush.records {
        let view = view(&record.bytes)?;
        rows.write(&[&view.scheduled.0.cast_signed(), &view.sequence.cast_signed(), &view.payload])
            .context("copy a row")?;
        bytes += record.bytes.len() as u64;
    }
    confirm(rows.finish().context("commit a copy")?, flush)?;
    Ok(bytes)
}

fn insert(client: &mut Client, head: &str, text: &mut String, flush: &Flush<'_>) -> Result<u64> {
    text.clear();
    text.push_str(head);
    for (i, record) in flush.records.iter().enumerate() {
        let view = view(&record.bytes)?;
        let comma = if i == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        write!(text, "{comma}({},{},'", view.scheduled.0.cast_signed(), view.sequence.cast_signed()).ok();
        escape_bytea(view.payload, text);
        text.push_str("')");
    }
    let messages = client.simple_query(text).context("insert rows")?;
    let inserted = messages.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    confirm(inserted.unwrap_or(0), flush)?;
    Ok(text.len() as u64)
}

fn view(bytes: &[u8]) -> Result<RecordView<'_>> {
    let whole = RecordView::parse(bytes)?;
    Ok(whole.context("a record that was queued whole")?.0)
}

fn confirm(rows: u64, flush: &Flush<'_>) -> Result<()> {
    if rows != flush.header.records {
        bail!("PostgreSQL took {rows} rows of {}", flush.header.records);
    }
    Ok(())
}

/// The table of a pipeline as an SQL identifier.
fn table_of(name: &str) -> String {
    let name: String = name.chars().filter(|c| *c != '\0').take(40).collect();
    format!("\"tidegate_lab_{}\"", name.replace('"', "\"\""))
}

/// Bytes inside a quoted literal in PostgreSQL's escape format: text stays readable and keeps its length.
fn escape_bytea(bytes: &[u8], into: &mut String) {
    for byte in bytes {
        match byte {
            b'\'' => into.push_str("''"),
            b'\\' => into.push_str("\\\\"),
            b' '..=b'~' => into.push(char::from(*byte)),
            // Writing to a string cannot fail.
            _ => write!(into, "\\{byte:03o}").unwrap_or(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(table_of("a\"; DROP"), "\"tidegate_lab_a\"\"; DROP\"");
        assert_eq!(table_of("ingest"), "\"tidegate_lab_ingest\"");
    }

    #[test]
    fn any_bytes_stay_inside_their_literal() {
        let mut text = String::new();
        escape_bytea(b"a'b\\c\x00\xff d", &mut text);
        assert_eq!(text, "a''b\\\\c\\000\\377 d");
    }
}
