//! One address in several accounts: the users that it has, and the sessions that one sign-in offers. `users` has the
//! rest.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::store::Store;
use super::users::{add_session, credentials_from_row, draw_token, end_oldest, take_step, user_from_row};
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::audit::Action;
use crate::domain::id::UserId;
use crate::domain::user::{Email, User};
use crate::store::contract::Memberships;
use crate::store::errors::StoreError;
use crate::store::people_rows::{COLUMNS, FROM, SIGN_IN, THERE};
use crate::store::shared::AuditRecord;
use crate::store::values::{MAX_OPENED, OFFER_LIFE, PasswordHash, Proof, SignInCredentials};

impl Memberships for Store {
    async fn password_of_address(&self, email: Email) -> Result<Option<PasswordHash>, StoreError> {
        self.read_short(None, move |db| {
            let sql = "SELECT password FROM users WHERE email = ?1 AND password IS NOT NULL LIMIT 1";
            let found = db.prepare_cached(sql)?.query_row([email.as_str()], |row| row.get(0)).optional()?;
            Ok(found.map(PasswordHash))
        })
        .await
    }

    async fn opened_by(&self, email: Email, password: PasswordHash) -> Result<Vec<SignInCredentials>, StoreError> {
        let shared = self.shared.clone();
        self.read_short(None, move |db| {
            let sql = format!(
                "SELECT {COLUMNS}, {SIGN_IN} FROM {FROM} WHERE u.email = ?1 AND u.password = ?2 AND {THERE} \
                 ORDER BY IFNULL(u.last_sign_in_at, 0) DESC, u.key LIMIT {MAX_OPENED}"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let found = statement.query_map(params![email.as_str(), password.0], credentials_from_row)?;
            found.map(|found| Ok(found?.open(&shared))).collect()
        })
        .await
    }

    async fn users_with(&self, email: Email) -> Result<Vec<User>, StoreError> {
        self.read_short(None, move |db| {
            let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.email = ?1 AND {THERE} ORDER BY u.key");
            let mut statement = db.prepare_cached(&sql)?;
            let found = statement.query_map([email.as_str()], user_from_row)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn note_failed_sign_in(&self, user: User, wrong: &'static str) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        let record = AuditRecord::of_user(&user, Action::UserSignInFailed).with_fields(&[wrong]);
        self.writer.write(move |tx| tx.audit(&origin, &record)).await
    }

    async fn offer_sign_in(&self, user: UserId, proof: Proof) -> Result<PlainKey, StoreError> {
        self.writer
            .write(move |tx| {
                let token = draw_token(tx);
                if let Proof::Password(PasswordHash(hash), step) = proof {
                    let sql = "SELECT 1 FROM users WHERE id = ?1 AND password = ?2";
                    if !tx.db.prepare_cached(sql)?.exists(params![user.0.as_bytes(), hash])? {
                        return Err(StoreError::NotFound);
                    }
                    take_step(tx.db, user, step)?;
                }
                add_session(tx, user, &token, OFFER_LIFE, true)?;
                Ok(token)
            })
            .await
    }

    async fn offered(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        let now = self.shared.clock.now();
        self.read_short(None, move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM {FROM} JOIN sessions s ON s.owner = u.key \
                 WHERE s.token = ?1 AND s.offered AND s.expires_at > ?2 AND {THERE}"
            );
            let parameters = params![token.as_bytes(), now.as_millis()];
            Ok(db.prepare_cached(&sql)?.query_row(parameters, user_from_row).optional()?)
        })
        .await
    }

    async fn take_offer(&self, token: KeyHash, others: Vec<KeyHash>, lives: Duration) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let now = tx.now.as_millis();
                let sql = "UPDATE sessions SET offered = 0, seen_at = ?2, expires_at = ?3 \
                           WHERE token = ?1 AND offered AND expires_at > ?2";
                let parameters = params![token.as_bytes(), now, tx.now.plus(lives).as_millis()];
                if tx.db.prepare_cached(sql)?.execute(parameters)? == 0 {
                    return Err(StoreError::NotFound);
                }
                end_oldest(tx.db, token)?;
                for other in others {
                    let sql = "DELETE FROM sessions WHERE token = ?1 AND offered";
                    tx.db.prepare_cached(sql)?.execute([other.as_bytes()])?;
                }
                let owner = "(SELECT owner FROM sessions WHERE token = ?1)";
                let sql = format!("UPDATE users SET last_sign_in_at = ?2 WHERE key = {owner}");
                tx.db.prepare_cached(&sql)?.execute(params![token.as_bytes(), now])?;
                let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.key = {owner}");
                let user = tx.db.prepare_cached(&sql)?.query_row([token.as_bytes()], user_from_row)?;
                tx.audit(&origin, &AuditRecord::of_user(&user, Action::UserSignedIn))
            })
            .await
    }
}
