//! What a database role may do is looked at before a server starts, and what it lacks is named. Only PostgreSQL has
//! roles.

use aldaba::config::Config;
use aldaba::store::{Health, Lifecycle};

use crate::app::{App, config};
use crate::command_line::aldaba;
use crate::database;

/// A database that is up to date, and a new role that may read and write its tables and nothing else.
struct Limited {
    folder: std::sync::Arc<tempfile::TempDir>,
    role: String,
}

impl Limited {
    async fn new() -> Self {
        let folder = App::start().await.stop().await;
        let name = std::fs::read_to_string(folder.path().join("database")).expect("a name");
        let limited = Self { folder, role: format!("r{name}") };
        let role = &limited.role;
        limited
            .execute(&format!(
                "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE \
                 ON ALL TABLES IN SCHEMA public TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
            ))
            .await;
        limited
    }

    async fn execute(&self, sql: &str) {
        database::connect(&database::url(self.folder.path())).await.batch_execute(sql).await.expect("executed");
    }

    fn url(&self) -> String {
        database::url(self.folder.path()).replace("postgres://postgres@", &format!("postgres://{}@", self.role))
    }

    fn config(&self) -> Config {
        config(self.folder.path(), &[("DATABASE_URL", &self.url())])
    }

    /// Why a server does not start, and the statements that the message names.
    async fn refused(&self) -> (String, Vec<String>) {
        let message = aldaba::App::open(self.config()).await.err().expect("refused").to_string();
        assert!(message.contains("privilege") && message.contains("GRANT"), "{message}");
        let statements = message.lines().filter_map(|line| line.strip_suffix(';')).map(str::to_owned).collect();
        (message, statements)
    }

    async fn starts(&self) {
        let app = aldaba::App::open(self.config()).await.unwrap_or_else(|error| panic!("{error}"));
        app.store.ping().await.expect("it works");
        app.store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_role_that_owns_nothing_is_told_what_it_lacks_and_starts_when_it_has_it() {
    if !database::is_postgres() {
        return;
    }
    let limited = Limited::new().await;
    let (message, statements) = limited.refused().await;
    let role = &limited.role;
    assert!(statements.contains(&format!("GRANT CREATE ON SCHEMA public TO {role}")), "{message}");
    for table in ["events", "payloads", "deliveries", "attempts"] {
        assert!(statements.contains(&format!("ALTER TABLE public.{table} OWNER TO {role}")), "{message}");
    }
    assert!(!message.contains("GRANT SELECT"), "it has those: {message}");
    for statement in statements {
        limited.execute(&statement).await;
    }
    limited.starts().await;
}

#[tokio::test]
async fn a_role_that_may_make_tables_but_could_attach_none_is_refused_at_the_start_and_not_days_later() {
    if !database::is_postgres() {
        return;
    }
    let limited = Limited::new().await;
    let role = &limited.role;
    limited.execute(&format!("GRANT CREATE ON SCHEMA public TO {role}")).await;
    let (message, statements) = limited.refused().await;
    assert!(statements.iter().all(|statement| statement.starts_with("ALTER TABLE")), "{message}");
    // Another way than the statements: to be a member of the role that owns the tables.
    limited.execute(&format!("CREATE ROLE owns_{role}; GRANT CREATE ON SCHEMA public TO owns_{role}")).await;
    for statement in statements {
        limited.execute(&statement.replace(&format!("TO {role}"), &format!("TO owns_{role}"))).await;
    }
    limited.execute(&format!("GRANT owns_{role} TO {role}")).await;
    limited.starts().await;
}

#[tokio::test]
async fn a_role_that_may_not_write_a_table_is_told_so() {
    if !database::is_postgres() {
        return;
    }
    let limited = Limited::new().await;
    let role = &limited.role;
    limited.execute(&format!("REVOKE DELETE ON queue, settings FROM {role}")).await;
    limited.execute(&format!("REVOKE ALL ON SEQUENCE turns FROM {role}")).await;
    let (message, statements) = limited.refused().await;
    let tables = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON queue, settings TO {role}");
    assert!(statements.contains(&tables), "{message}");
    assert!(statements.contains(&format!("GRANT USAGE ON SEQUENCE turns TO {role}")), "{message}");
}

#[tokio::test]
async fn a_command_needs_no_tables_of_its_own() {
    if !database::is_postgres() {
        return;
    }
    let limited = Limited::new().await;
    let list = || {
        let mut command = aldaba(limited.folder.path(), &["accounts", "list"]);
        command.env("ALDABA_DATABASE_URL", limited.url());
        command.output().expect("it runs")
    };
    let listed = list();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    limited.execute(&format!("REVOKE SELECT ON accounts FROM {}", limited.role)).await;
    let refused = String::from_utf8_lossy(&list().stderr).into_owned();
    assert!(refused.contains("privilege") && refused.contains("ON accounts TO"), "{refused}");
}

/// A command made the partitions of the coming days where they were missing, which only the owner of the tables may.
#[tokio::test]
async fn a_command_leaves_the_partitions_of_days_to_servers() {
    if !database::is_postgres() {
        return;
    }
    let limited = Limited::new().await;
    let days = "SELECT format('DROP TABLE %s', string_agg(i.inhrelid::regclass::text, ', ')) FROM pg_inherits i \
                JOIN pg_class c ON c.oid = i.inhparent WHERE c.relname = 'events'";
    let db = database::connect(&database::url(limited.folder.path())).await;
    let drop: String = db.query_one(days, &[]).await.expect("a statement").get(0);
    limited.execute(&drop).await;
    let mut command = aldaba(limited.folder.path(), &["accounts", "list"]);
    let listed = command.env("ALDABA_DATABASE_URL", limited.url()).output().expect("it runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[tokio::test]
async fn a_role_that_may_not_make_the_first_tables_is_told_how_it_may() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let url = database::url(folder.path());
    let name = std::fs::read_to_string(folder.path().join("database")).expect("a name");
    database::connect(&url).await.batch_execute(&format!("CREATE ROLE r{name} LOGIN")).await.expect("a role");
    let url = url.replace("postgres://postgres@", &format!("postgres://r{name}@"));
    let refused = aldaba::App::open(config(folder.path(), &[("DATABASE_URL", &url)])).await.err().expect("refused");
    let refused = refused.to_string();
    assert!(refused.contains("privilege") && refused.contains("GRANT USAGE, CREATE ON SCHEMA"), "{refused}");
}
