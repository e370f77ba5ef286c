//! People: users, what they sign in with, and their sessions.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::catalog_rows::account;
use super::columns::{count, parsed, read_row, sql_offset, time, uuid};
use super::store::Store;
use super::tx::Tx;
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::audit::Action;
use crate::domain::id::{AccountId, AccountKey, UserId};
use crate::domain::secret::{Keyring, SealedSecret};
use crate::domain::time::Timestamp;
use crate::domain::user::{Email, Role, User};
use crate::store::contract::{SignIn, Users};
use crate::store::errors::StoreError;
use crate::store::people_rows::{COLUMNS, FROM, SIGN_IN, THERE};
use crate::store::shared::{AuditRecord, Shared};
use crate::store::values::{
    INVITATION_LIFE, MAX_SESSIONS, NewUser, Page, Paged, PasswordHash, PendingReply, Proof, SESSION_SEEN_INTERVAL,
    SignInChange, SignInCredentials, WithToken,
};

impl Users for Store {
    async fn create_user(
        &self,
        new: NewUser,
        pending_reply: Option<PendingReply<WithToken<User>>>,
    ) -> Result<WithToken<User>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = key_of(tx.db, new.account)?;
                let id = UserId::from_random(tx.shared.random.array());
                if let Some(password) = &new.password {
                    check_recipe(tx.db, &new.email, id, password)?;
                }
                let token = new.password.is_none().then(|| draw_token(tx));
                let sql = "INSERT INTO users (id, account, email, role, password, invitation, invited_until, \
                           created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) ON CONFLICT DO NOTHING";
                let added = tx.db.prepare_cached(sql)?.execute(params![
                    id.0.as_bytes(),
                    account.map(|key| key.0),
                    new.email.as_str(),
                    new.role.name(),
                    new.password.map(|PasswordHash(hash)| hash),
                    token.as_ref().map(|token| *KeyHash::of(token.reveal()).as_bytes()),
                    token.as_ref().map(|_| invitation_end(tx.now)),
                    tx.now.as_millis(),
                ])?;
                if added == 0 {
                    return Err(StoreError::Exists);
                }
                let made = WithToken { resource: by_id(tx.db, id)?, token };
                let record = AuditRecord::of_user(&made.resource, Action::UserInvited).with_fields(&["email", "role"]);
                tx.audit(&origin, &record)?;
                tx.store_pending_reply(pending_reply, &made)?;
                Ok(made)
            })
            .await
    }

    async fn invite_user(
        &self,
        owner: Option<AccountId>,
        id: UserId,
        pending_reply: Option<PendingReply<WithToken<User>>>,
    ) -> Result<WithToken<User>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                find(tx.db, owner, id)?;
                let token = draw_token(tx);
                let sql = "UPDATE users SET invitation = ?2, invited_until = ?3, updated_at = ?4 WHERE id = ?1";
                tx.db.prepare_cached(sql)?.execute(params![
                    id.0.as_bytes(),
                    KeyHash::of(token.reveal()).as_bytes(),
                    invitation_end(tx.now),
                    tx.now.as_millis(),
                ])?;
                let invited = WithToken { resource: by_id(tx.db, id)?, token: Some(token) };
                tx.audit(&origin, &AuditRecord::of_user(&invited.resource, Action::UserInvited))?;
                tx.store_pending_reply(pending_reply, &invited)?;
                Ok(invited)
            })
            .await
    }

    async fn users(&self, owner: Option<AccountId>, page: Page) -> Result<Paged<User>, StoreError> {
        self.read(owner, move |db| {
            let snapshot = db.unchecked_transaction()?;
            let key = key_of(&snapshot, owner)?.map(|key| key.0);
            let total = count(&snapshot, "SELECT COUNT(*) AS total FROM users WHERE account IS ?1", [key])?;
            let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.account IS ?1 ORDER BY u.key LIMIT ?2 OFFSET ?3");
            let mut statement = snapshot.prepare_cached(&sql)?;
            let rows = statement.query_map(params![key, page.limit(), sql_offset(page)], user_from_row)?;
            Ok(Paged::exact(rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    async fn user(&self, owner: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        self.read(owner, move |db| find(db, owner, id)).await
    }

    async fn update_user(&self, owner: Option<AccountId>, id: UserId, role: Role) -> Result<User, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let user = find(tx.db, owner, id)?;
                if user.role != role {
                    check_not_last(tx.db, &user)?;
                }
                let sql = "UPDATE users SET role = ?2, updated_at = ?3 WHERE id = ?1";
                tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), role.name(), tx.now.as_millis()])?;
                tx.audit(&origin, &AuditRecord::of_user(&user, Action::UserUpdated).with_fields(&["role"]))?;
                by_id(tx.db, id)
            })
            .await
    }

    async fn delete_user(&self, owner: Option<AccountId>, id: UserId) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let user = find(tx.db, owner, id)?;
                check_not_last(tx.db, &user)?;
                end_sessions(tx.db, id, None)?;
                tx.db.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id.0.as_bytes()])?;
                tx.audit(&origin, &AuditRecord::of_user(&user, Action::UserDeleted))
            })
            .await
    }

    async fn reset_second_factor(&self, owner: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                find(tx.db, owner, id)?;
                let sql = "UPDATE users SET factor_key_id = NULL, factor_sealed = NULL, factor_reset_at = ?2, \
                           updated_at = ?2 WHERE id = ?1 AND factor_sealed IS NOT NULL";
                if tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), tx.now.as_millis()])? == 0 {
                    return Err(StoreError::NotFound);
                }
                end_sessions(tx.db, id, None)?;
                let user = by_id(tx.db, id)?;
                tx.audit(&origin, &AuditRecord::of_user(&user, Action::UserFactorReset))?;
                Ok(user)
            })
            .await
    }
}

impl SignIn for Store {
    async fn credentials_of(&self, id: UserId) -> Result<Option<SignInCredentials>, StoreError> {
        let shared = self.shared.clone();
        self.read_short(None, move |db| {
            let sql = format!("SELECT {COLUMNS}, {SIGN_IN} FROM {FROM} WHERE u.id = ?1 AND {THERE}");
            let found = db.prepare_cached(&sql)?.query_row([id.0.as_bytes()], credentials_from_row).optional()?;
            Ok(found.map(|found| found.open(&shared)))
        })
        .await
    }

    async fn confirm(&self, user: UserId, proof: Proof, session: KeyHash) -> Result<(), StoreError> {
        self.writer.write(move |tx| confirm(tx.db, user, proof, session)).await
    }

    async fn sign_in(&self, user: UserId, proof: Proof, lives: Duration) -> Result<PlainKey, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let token = draw_token(tx);
                let (hash, step) = match proof {
                    Proof::Password(PasswordHash(hash), step) => (Some(hash), step),
                    Proof::Trusted => (None, None),
                };
                let sql = "UPDATE users SET last_sign_in_at = ?2, factor_step = IFNULL(?4, factor_step) WHERE id = ?1 \
                           AND (?3 IS NULL OR password = ?3 AND (factor_sealed IS NULL) = (?4 IS NULL)) \
                           AND (?4 IS NULL OR factor_step < ?4)";
                let parameters = params![user.0.as_bytes(), tx.now.as_millis(), hash, step];
                if tx.db.prepare_cached(sql)?.execute(parameters)? == 0 {
                    return Err(StoreError::NotFound);
                }
                add_session(tx, user, &token, lives, false)?;
                tx.audit(&origin, &AuditRecord::of_user(&by_id(tx.db, user)?, Action::UserSignedIn))?;
                Ok(token)
            })
            .await
    }

    async fn session(&self, token: KeyHash, idle: Duration, touch: bool) -> Result<Option<User>, StoreError> {
        let now = self.shared.clock.now();
        let found = self
            .read_short(None, move |db| {
                let sql = format!(
                    "SELECT {COLUMNS}, s.seen_at FROM {FROM} JOIN sessions s ON s.owner = u.key \
                     WHERE s.token = ?1 AND NOT s.offered AND s.expires_at > ?2 AND s.seen_at > ?3 AND {THERE}"
                );
                let mut statement = db.prepare_cached(&sql)?;
                let parameters = params![token.as_bytes(), now.as_millis(), now.minus(idle).as_millis()];
                let found = statement.query_row(parameters, |row| {
                    Ok((user_from_row(row)?, Timestamp::from_millis(row.get("seen_at")?)))
                });
                Ok(found.optional()?)
            })
            .await?;
        let Some((user, seen_at)) = found else { return Ok(None) };
        // Not at each use, but often enough that one that is used does not idle out.
        if !touch || now.since(seen_at) < SESSION_SEEN_INTERVAL.min(idle / 2) {
            return Ok(Some(user));
        }
        let touched = self
            .writer
            .write(move |tx| {
                let sql = "UPDATE sessions SET seen_at = MAX(seen_at, ?2) WHERE token = ?1";
                Ok(tx.db.prepare_cached(sql)?.execute(params![token.as_bytes(), now.as_millis()])?)
            })
            .await?;
        // It may have been ended since it was looked up.
        Ok((touched > 0).then_some(user))
    }

    async fn sign_out(&self, token: KeyHash) -> Result<(), StoreError> {
        self.writer
            .write(move |tx| {
                tx.db.prepare_cached("DELETE FROM sessions WHERE token = ?1")?.execute([token.as_bytes()])?;
                Ok(())
            })
            .await
    }

    async fn change_sign_in(
        &self,
        user: UserId,
        change: SignInChange,
        proof: Proof,
        session: KeyHash,
    ) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                confirm(tx.db, user, proof, session)?;
                let found = by_id(tx.db, user)?;
                let mut stays = Some(session);
                let (id, now) = (user.0.as_bytes(), tx.now.as_millis());
                let record = match change {
                    SignInChange::Password(password) => {
                        check_recipe(tx.db, &found.email, user, &password)?;
                        let PasswordHash(hash) = password;
                        let sql = "UPDATE users SET password = ?2, invitation = NULL, invited_until = NULL, updated_at \
                                   = ?3 WHERE id = ?1";
                        tx.db.prepare_cached(sql)?.execute(params![id, hash, now])?;
                        AuditRecord::of_user(&found, Action::UserUpdated).with_fields(&["password"])
                    }
                    SignInChange::SecondFactor(secret, step) => {
                        let sealed = tx.shared.keyring().seal(&secret, user.0, tx.shared.random.array());
                        let sql = "UPDATE users SET factor_key_id = ?2, factor_sealed = ?3, factor_step = ?4, \
                                   factor_reset_at = NULL, updated_at = ?5 WHERE id = ?1";
                        tx.db.prepare_cached(sql)?.execute(params![id, sealed.key_id, sealed.bytes, step, now])?;
                        AuditRecord::of_user(&found, Action::UserUpdated).with_fields(&["two_factor"])
                    }
                    SignInChange::NoSecondFactor => {
                        let sql = "UPDATE users SET factor_key_id = NULL, factor_sealed = NULL, updated_at = ?2 \
                                   WHERE id = ?1";
                        tx.db.prepare_cached(sql)?.execute(params![id, now])?;
                        AuditRecord::of_user(&found, Action::UserUpdated).with_fields(&["two_factor"])
                    }
                    SignInChange::ResetSeen => {
                        let sql = "UPDATE users SET factor_reset_at = NULL WHERE id = ?1";
                        tx.db.prepare_cached(sql)?.execute([id])?;
                        return Ok(());
                    }
                    SignInChange::Sessions => {
                        stays = None;
                        let sql = "UPDATE users SET invitation = NULL, invited_until = NULL WHERE id = ?1";
                        tx.db.prepare_cached(sql)?.execute([id])?;
                        AuditRecord::of_user(&found, Action::UserSignedOut)
                    }
                };
                end_sessions(tx.db, user, stays)?;
                tx.audit(&origin, &record)
            })
            .await
    }

    async fn invited(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        let now = self.shared.clock.now();
        self.read_short(None, move |db| invited(db, token, now)).await
    }

    async fn join(&self, token: KeyHash, password: PasswordHash, step: Option<i64>) -> Result<User, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let User { id, email, .. } = invited(tx.db, token, tx.now)?.ok_or(StoreError::NotFound)?;
                check_recipe(tx.db, &email, id, &password)?;
                take_step(tx.db, id, step)?;
                let sql = "UPDATE users SET password = ?2, invitation = NULL, invited_until = NULL, updated_at = ?3 \
                           WHERE id = ?1";
                tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), password.0, tx.now.as_millis()])?;
                end_sessions(tx.db, id, None)?;
                let user = by_id(tx.db, id)?;
                tx.audit(&origin, &AuditRecord::of_user(&user, Action::UserJoined))?;
                Ok(user)
            })
            .await
    }
}

/// Removes the users of an account, their sessions and the links into its pages.
pub(super) fn forget(db: &Connection, account: AccountKey) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM sessions WHERE owner IN (SELECT key FROM users WHERE account = ?1)",
        "DELETE FROM users WHERE account = ?1",
        "DELETE FROM portal_links WHERE account = ?1",
    ] {
        db.prepare_cached(sql)?.execute([account.0])?;
    }
    Ok(())
}

/// Seals second factors with the current master key. Returns how many were sealed anew.
pub(super) fn reseal_factors(tx: &Tx<'_>, keyring: &Keyring) -> Result<u64, StoreError> {
    let sql = "SELECT id, factor_key_id, factor_sealed FROM users WHERE factor_key_id <> ?1";
    let stale = tx
        .db
        .prepare(sql)?
        .query_map([keyring.current_id()], |row| {
            let sealed = SealedSecret { key_id: row.get("factor_key_id")?, bytes: row.get("factor_sealed")? };
            Ok((UserId(uuid(row, "id")?), sealed))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    for (id, old) in &stale {
        let secret = keyring.open(old, id.0).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let new = keyring.seal(&secret, id.0, tx.shared.random.array());
        let sql = "UPDATE users SET factor_key_id = ?2, factor_sealed = ?3 WHERE id = ?1";
        tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), new.key_id, new.bytes])?;
    }
    Ok(stale.len() as u64)
}

pub(super) fn draw_token(tx: &Tx<'_>) -> PlainKey {
    PlainKey::from_random("", tx.shared.random.array())
}

pub(super) fn add_session(
    tx: &Tx<'_>,
    user: UserId,
    token: &PlainKey,
    lives: Duration,
    offered: bool,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions (token, owner, seen_at, expires_at, offered) \
               SELECT ?2, key, ?3, ?4, ?5 FROM users WHERE id = ?1";
    tx.db.prepare_cached(sql)?.execute(params![
        user.0.as_bytes(),
        KeyHash::of(token.reveal()).as_bytes(),
        tx.now.as_millis(),
        tx.now.plus(lives).as_millis(),
        offered,
    ])?;
    end_oldest(tx.db, KeyHash::of(token.reveal()))
}

/// Ends the sessions that the user of this one has beyond [`MAX_SESSIONS`], those that were unused longest; or offers,
/// where this is one. This one stays.
pub(super) fn end_oldest(db: &Connection, token: KeyHash) -> Result<(), StoreError> {
    let sql = format!(
        "DELETE FROM sessions WHERE token IN (SELECT o.token FROM sessions s \
         JOIN sessions o ON o.owner = s.owner AND o.offered = s.offered WHERE s.token = ?1 \
         ORDER BY o.token = ?1 DESC, o.seen_at DESC LIMIT -1 OFFSET {MAX_SESSIONS})"
    );
    db.prepare_cached(&sql)?.execute([token.as_bytes()])?;
    Ok(())
}

/// When an invitation that is made now ends.
fn invitation_end(now: Timestamp) -> i64 {
    now.plus(INVITATION_LIFE).as_millis()
}

/// Holds what was proved against what there is now: the session, the password, and the second factor, whose time step
/// is taken.
fn confirm(db: &Connection, user: UserId, proof: Proof, session: KeyHash) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM users u JOIN sessions s ON s.owner = u.key \
               WHERE u.id = ?1 AND s.token = ?2 AND NOT s.offered AND (?3 IS NULL OR u.password = ?3)";
    let (hash, step) = match proof {
        Proof::Password(PasswordHash(hash), step) => (Some(hash), Some(step)),
        Proof::Trusted => (None, None),
    };
    if !db.prepare_cached(sql)?.exists(params![user.0.as_bytes(), session.as_bytes(), hash])? {
        return Err(StoreError::NotFound);
    }
    step.map_or(Ok(()), |step| take_step(db, user, step))
}

/// Takes a time step of the user's second factor, once; without a step the user must have no second factor.
pub(super) fn take_step(db: &Connection, user: UserId, step: Option<i64>) -> Result<(), StoreError> {
    let sql = "UPDATE users SET factor_step = IFNULL(?2, factor_step) WHERE id = ?1 \
               AND (factor_sealed IS NULL) = (?2 IS NULL) AND (?2 IS NULL OR factor_step < ?2)";
    let taken = db.prepare_cached(sql)?.execute(params![user.0.as_bytes(), step])?;
    if taken == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// The account's row; none of the operators'.
fn key_of(db: &Connection, owner: Option<AccountId>) -> Result<Option<AccountKey>, StoreError> {
    owner.map(|id| account(db, id).map(|account| account.key)).transpose()
}

/// One user of the account, or an operator; another account's does not exist.
fn find(db: &Connection, owner: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
    let key = key_of(db, owner)?.map(|key| key.0);
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.id = ?1 AND u.account IS ?2");
    Ok(db.prepare_cached(&sql)?.query_row(params![id.0.as_bytes(), key], user_from_row)?)
}

/// One user, whosever they are.
fn by_id(db: &Connection, id: UserId) -> Result<User, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id.0.as_bytes()], user_from_row)?)
}

fn invited(db: &Connection, token: KeyHash, now: Timestamp) -> Result<Option<User>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.invitation = ?1 AND u.invited_until > ?2 AND {THERE}");
    let parameters = params![token.as_bytes(), now.as_millis()];
    Ok(db.prepare_cached(&sql)?.query_row(parameters, user_from_row).optional()?)
}

/// Refuses where nobody would be left who can do everything. Who has not joined cannot do anything yet.
fn check_not_last(db: &Connection, user: &User) -> Result<(), StoreError> {
    if !user.joined || !matches!(user.role, Role::Owner | Role::Operator) {
        return Ok(());
    }
    let sql = "SELECT 1 FROM users WHERE account IS ?1 AND role = ?2 AND password IS NOT NULL AND id <> ?3";
    let account = user.account.map(|(_, key)| key.0);
    let others = db.prepare_cached(sql)?.exists(params![account, user.role.name(), user.id.0.as_bytes()])?;
    if others { Ok(()) } else { Err(StoreError::LastOwner) }
}

/// Ends the sessions of a user, all but one.
fn end_sessions(db: &Connection, user: UserId, stays: Option<KeyHash>) -> Result<(), StoreError> {
    let sql = "DELETE FROM sessions WHERE owner = (SELECT key FROM users WHERE id = ?1) AND token IS NOT ?2";
    let stays = stays.map(|token| *token.as_bytes());
    db.prepare_cached(sql)?.execute(params![user.0.as_bytes(), stays])?;
    Ok(())
}

/// What a user signs in with, the second factor still sealed.
pub(super) struct SealedCredentials {
    user: User,
    password: Option<String>,
    factor: Option<SealedSecret>,
}

impl SealedCredentials {
    pub(super) fn open(self, shared: &Shared) -> SignInCredentials {
        let second_factor = shared.open_factor(self.factor.as_ref(), self.user.id);
        SignInCredentials { user: self.user, password: self.password.map(PasswordHash), second_factor }
    }
}

pub(super) fn credentials_from_row(row: &Row<'_>) -> rusqlite::Result<SealedCredentials> {
    let factor = match row.get::<_, Option<String>>("factor_key_id")? {
        Some(key_id) => Some(SealedSecret { key_id, bytes: row.get("factor_sealed")? }),
        None => None,
    };
    Ok(SealedCredentials { user: user_from_row(row)?, password: row.get("password")?, factor })
}

pub(super) fn user_from_row(row: &Row<'_>) -> rusqlite::Result<User> {
    read_row("users", row, |row| {
        let account = match row.get::<_, Option<i64>>("account")? {
            Some(key) => Some((AccountId(uuid(row, "account_id")?), AccountKey(key))),
            None => None,
        };
        Ok(User {
            id: UserId(uuid(row, "id")?),
            account,
            email: parsed(row, "email", |text: String| Email::parse(&text))?,
            role: parsed(row, "role", |name: String| Role::parse(&name))?,
            joined: row.get("joined")?,
            two_factor: row.get("two_factor")?,
            invited_until: time(row, "invited_until")?,
            factor_reset_at: time(row, "factor_reset_at")?,
            last_sign_in_at: time(row, "last_sign_in_at")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            updated_at: Timestamp::from_millis(row.get("updated_at")?),
        })
    })
}

/// Refuses a password that is hashed unlike those of other users with the address: a sign-in hashes once for all of
/// them.
pub(super) fn check_recipe(
    db: &Connection,
    email: &Email,
    user: UserId,
    password: &PasswordHash,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM users WHERE email = ?1 AND id <> ?2 AND password IS NOT NULL \
               AND substr(password, 1, length(?3) + 1) <> ?3 || '$'";
    let parameters = params![email.as_str(), user.0.as_bytes(), password.recipe()];
    if db.prepare_cached(sql)?.exists(parameters)? { Err(StoreError::OtherRecipe) } else { Ok(()) }
}
