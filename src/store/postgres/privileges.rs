//! What the database role of this process must be allowed to do, looked at before anything is done.
//!
//! Without this check a role that cannot make partitions would fail days after the start.

use std::collections::BTreeSet;

use deadpool_postgres::GenericClient;

use super::migrations::{MIGRATIONS, Migration};
use super::sql::{get, one, rows};
use crate::store::errors::{OpenError, StoreError};

/// What is done with rows of every table.
const ON_TABLES: &str = "SELECT, INSERT, UPDATE, DELETE";

/// Statements in one message: those of three weeks of partitions. Of more, the next start names the rest.
const MAX_STATEMENTS: usize = 100;

/// Tables and sequences by name.
struct Relations {
    tables: Vec<&'static str>,
    sequences: Vec<&'static str>,
}

/// Refuses a role that lacks a privilege, with the statements that grant it. Every node may be the one that tidies up,
/// and so must be able to make and drop partitions, which is their owner's right alone; commands need not.
pub(super) async fn check(db: &impl GenericClient, serves: bool) -> Result<(), OpenError> {
    let failed = |error: StoreError| OpenError(format!("cannot look up the privileges of the role: {error}"));
    let sql = "SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS name";
    let found = one(db, sql, &[]).await.map_err(failed)?;
    let (role, name): (String, String) = (get(&found, "role").map_err(failed)?, get(&found, "name").map_err(failed)?);
    let mut missing = missing_grants(db, &role).await.map_err(failed)?;
    if serves {
        missing.extend(missing_ownership(db, &role).await.map_err(failed)?);
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(OpenError(refusal(&role, &name, &missing)))
}

fn refusal(role: &str, name: &str, missing: &[String]) -> String {
    let mut text = format!(
        "the role {role} lacks privileges on the database {name}. Run these statements as a superuser or as the owner \
         of the tables, and start again. Where several roles share the tables, make one role their owner and GRANT \
         that role to the others instead of the statements with OWNER:\n"
    );
    for statement in missing.iter().take(MAX_STATEMENTS) {
        text.push_str(&format!("{statement};\n"));
    }
    if missing.len() > MAX_STATEMENTS {
        text.push_str(&format!("-- and {} more: the next start names them\n", missing.len() - MAX_STATEMENTS));
    }
    text
}

/// `GRANT`s for tables and sequences.
async fn missing_grants(db: &impl GenericClient, role: &str) -> Result<Vec<String>, StoreError> {
    let Relations { tables, sequences } = relations(MIGRATIONS);
    let mut missing = Vec::new();
    let sql = "SELECT t.name FROM unnest($1::text[]) AS t(name) JOIN pg_class c ON c.oid = to_regclass(t.name) \
               WHERE EXISTS (SELECT 1 FROM unnest(string_to_array($2, ', ')) AS p(name) \
               WHERE NOT has_table_privilege(c.oid, p.name)) ORDER BY t.name";
    let lacking = names(rows(db, sql, &[&tables, &ON_TABLES]).await?)?;
    if !lacking.is_empty() {
        missing.push(format!("GRANT {ON_TABLES} ON {} TO {role}", lacking.join(", ")));
    }
    let sql = "SELECT t.name FROM unnest($1::text[]) AS t(name) JOIN pg_class c ON c.oid = to_regclass(t.name) \
               WHERE NOT has_sequence_privilege(c.oid, 'USAGE') ORDER BY t.name";
    let lacking = names(rows(db, sql, &[&sequences]).await?)?;
    if !lacking.is_empty() {
        missing.push(format!("GRANT USAGE ON SEQUENCE {} TO {role}", lacking.join(", ")));
    }
    Ok(missing)
}

/// What it takes to make, attach and drop partitions: to own them and their parents, and to make tables in the schema.
async fn missing_ownership(db: &impl GenericClient, role: &str) -> Result<Vec<String>, StoreError> {
    let mut missing = Vec::new();
    let sql = "SELECT quote_ident(n.nspname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid = to_regclass('schema_version') AND NOT has_schema_privilege(n.oid, 'CREATE')";
    for schema in names(rows(db, sql, &[]).await?)? {
        missing.push(format!("GRANT CREATE ON SCHEMA {schema} TO {role}"));
    }
    // Parents first: there are few of them.
    let sql = "WITH parents AS (SELECT c.oid FROM unnest($1::text[]) AS t(name) \
               JOIN pg_class c ON c.oid = to_regclass(t.name) WHERE c.relkind = 'p') \
               SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c \
               JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE (c.oid IN (SELECT oid FROM parents) OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i \
               WHERE i.inhparent IN (SELECT oid FROM parents))) AND NOT pg_has_role(c.relowner, 'USAGE') \
               ORDER BY c.relkind DESC, c.relname";
    let tables = relations(MIGRATIONS).tables;
    for table in names(rows(db, sql, &[&tables]).await?)? {
        missing.push(format!("ALTER TABLE {table} OWNER TO {role}"));
    }
    Ok(missing)
}

fn names(found: Vec<tokio_postgres::Row>) -> Result<Vec<String>, StoreError> {
    found.iter().map(|row| get(row, "name")).collect()
}

/// What the migrations make.
fn relations(migrations: &[Migration]) -> Relations {
    let mut tables = BTreeSet::from(["schema_version"]);
    let mut sequences = BTreeSet::new();
    for line in migrations.iter().flat_map(|migration| migration.sql.lines()) {
        if let Some(name) = ["CREATE TABLE ", "CREATE UNLOGGED TABLE "].iter().find_map(|begin| named(line, begin)) {
            tables.insert(name);
        } else if let Some(name) = named(line, "CREATE SEQUENCE ") {
            sequences.insert(name);
        }
    }
    // What a later migration has dropped is not found by its name, and asked for no more.
    Relations { tables: tables.into_iter().collect(), sequences: sequences.into_iter().collect() }
}

fn named(line: &'static str, begin: &str) -> Option<&'static str> {
    let rest = line.strip_prefix(begin)?;
    rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest).split([' ', ';', '(']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_sequence_of_the_migrations_is_looked_at() {
        let Relations { tables, sequences } = relations(MIGRATIONS);
        for table in ["schema_version", "settings", "deliveries", "calls_in_flight", "audit_log", "attempt_counts"] {
            assert!(tables.contains(&table), "{table}");
        }
        assert!(tables.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{tables:?}");
        assert_eq!(sequences, ["id_blocks", "turns"]);
    }

    #[test]
    fn a_message_names_so_many_statements_and_how_many_more_there_are() {
        let text = refusal("r", "d", &vec!["ALTER TABLE t OWNER TO r".to_owned(); MAX_STATEMENTS + 7]);
        assert!(text.contains("privilege") && text.contains("GRANT") && text.contains("and 7 more"), "{text}");
        assert_eq!(text.matches("ALTER TABLE").count(), MAX_STATEMENTS);
    }
}
