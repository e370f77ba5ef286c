//! One address in several accounts: the users that it has, and the sessions that one sign-in offers. `users` has the
//! rest.

use std::time::Duration;

use super::sql::{execute, get, one, row, rows};
use super::store::Store;
use super::users::{add_session, end_oldest, take_step, user_from_row};
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::audit::Action;
use crate::domain::id::{AccountKey, UserId};
use crate::domain::user::{Email, User};
use crate::store::contract::Memberships;
use crate::store::errors::StoreError;
use crate::store::people_rows::{COLUMNS, FROM, SIGN_IN, THERE};
use crate::store::shared::AuditRecord;
use crate::store::values::{MAX_OPENED, OFFER_LIFE, PasswordHash, Proof, SignInCredentials};

impl Memberships for Store {
    async fn password_of_address(&self, email: Email) -> Result<Option<PasswordHash>, StoreError> {
        let sql = "SELECT password FROM users WHERE email = $1 AND password IS NOT NULL LIMIT 1";
        let found = row(&self.client().await?, sql, &[&email.as_str()]).await?;
        found.map(|found| get(&found, "password").map(PasswordHash)).transpose()
    }

    async fn opened_by(&self, email: Email, password: PasswordHash) -> Result<Vec<SignInCredentials>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, {SIGN_IN} FROM {FROM} WHERE u.email = $1 AND u.password = $2 AND {THERE} \
             ORDER BY coalesce(u.last_sign_in_at, 0) DESC, u.key LIMIT {MAX_OPENED}"
        );
        let found = rows(&self.client().await?, &sql, &[&email.as_str(), &password.0]).await?;
        found.iter().map(|found| self.credentials_from_row(found)).collect()
    }

    async fn users_with(&self, email: Email) -> Result<Vec<User>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.email = $1 AND {THERE} ORDER BY u.key");
        rows(&self.client().await?, &sql, &[&email.as_str()]).await?.iter().map(user_from_row).collect()
    }

    async fn note_failed_sign_in(&self, user: User, wrong: &'static str) -> Result<(), StoreError> {
        let record = AuditRecord::of_user(&user, Action::UserSignInFailed).with_fields(&[wrong]);
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        self.audit(&tx, &record, self.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn offer_sign_in(&self, user: UserId, proof: Proof) -> Result<PlainKey, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let (hash, step) = match proof {
            Proof::Password(PasswordHash(hash), step) => (Some(hash), Some(step)),
            Proof::Trusted => (None, None),
        };
        let sql = "SELECT key FROM users WHERE id = $1 AND ($2::text IS NULL OR password = $2::text) FOR UPDATE";
        let key: i64 = get(&one(&tx, sql, &[&user.0, &hash]).await?, "key")?;
        if let Some(step) = step {
            take_step(&tx, key, step).await?;
        }
        let token = self.draw_token();
        add_session(&tx, key, &token, (now, now.plus(OFFER_LIFE)), true).await?;
        tx.commit().await?;
        Ok(token)
    }

    async fn offered(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {FROM} JOIN sessions s ON s.owner = u.key \
             WHERE s.token = $1 AND s.offered AND s.expires_at > $2 AND {THERE}"
        );
        let parameters: super::sql::Params<'_> = &[&token.as_bytes().as_slice(), &self.now().as_millis()];
        row(&self.client().await?, &sql, parameters).await?.as_ref().map(user_from_row).transpose()
    }

    async fn take_offer(&self, token: KeyHash, others: Vec<KeyHash>, lives: Duration) -> Result<(), StoreError> {
        let (now, token) = (self.now(), token.as_bytes().as_slice());
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        // The user first: whoever ends their sessions at this moment is waited for.
        let sql = "UPDATE users SET last_sign_in_at = $2 WHERE key = (SELECT owner FROM sessions WHERE token = $1) \
                   RETURNING id, account";
        let user = one(&tx, sql, &[&token, &now.as_millis()]).await?;
        let sql = "UPDATE sessions SET offered = false, seen_at = $2, expires_at = $3 \
                   WHERE token = $1 AND offered AND expires_at > $2 RETURNING owner";
        one(&tx, sql, &[&token, &now.as_millis(), &now.plus(lives).as_millis()]).await?;
        end_oldest(&tx, token).await?;
        let others: Vec<Vec<u8>> = others.iter().map(|other| other.as_bytes().to_vec()).collect();
        execute(&tx, "DELETE FROM sessions WHERE token = ANY($1) AND offered", &[&others]).await?;
        let account = get::<Option<i64>>(&user, "account")?.map(AccountKey);
        self.audit(&tx, &AuditRecord::of(account, Action::UserSignedIn, UserId(get(&user, "id")?)), now).await?;
        tx.commit().await?;
        Ok(())
    }
}
