//! People: users, what they sign in with, and their sessions.
//!
//! Nodes keep nothing of this in memory: a session that was ended is ended everywhere. Locks are taken in the order
//! account, address, users by their keys, sessions: whoever holds a user's row may end their sessions, and nobody opens
//! one meanwhile.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::catalog_rows::{account, lock_account};
use super::sql::{corrupt, count, execute, get, offset, one, read_row, row, rows, snapshot, time, when};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::audit::Action;
use crate::domain::id::{AccountId, AccountKey, UserId};
use crate::domain::secret::{Keyring, SealedSecret};
use crate::domain::time::Timestamp;
use crate::domain::user::{Email, Role, User};
use crate::store::contract::{SignIn, Users};
use crate::store::errors::StoreError;
use crate::store::people_rows::{COLUMNS, FROM, SIGN_IN, THERE};
use crate::store::shared::AuditRecord;
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
        let now = self.now();
        let mut client = self.client_for(new.account).await?;
        let tx = client.transaction().await?;
        let account = match new.account {
            Some(id) => Some(lock_account(&tx, id).await?.key.0),
            None => None,
        };
        let id = UserId::from_random(self.shared.random.array());
        if let Some(password) = &new.password {
            check_recipe(&tx, &new.email, id, password).await?;
        }
        let token = new.password.is_none().then(|| self.draw_token());
        let sql = "INSERT INTO users (id, account, email, role, password, invitation, invited_until, created_at, \
                   updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT DO NOTHING";
        let parameters: super::sql::Params<'_> = &[
            &id.0,
            &account,
            &new.email.as_str(),
            &new.role.name(),
            &new.password.map(|PasswordHash(hash)| hash),
            &token.as_ref().map(hash_of),
            &token.as_ref().map(|_| invitation_end(now)),
            &now.as_millis(),
        ];
        if execute(&tx, sql, parameters).await? == 0 {
            return Err(StoreError::Exists);
        }
        let made = WithToken { resource: by_id(&tx, id).await?, token };
        let record = AuditRecord::of_user(&made.resource, Action::UserInvited).with_fields(&["email", "role"]);
        self.audit(&tx, &record, now).await?;
        write_pending_reply(&tx, pending_reply, &made, now).await?;
        tx.commit().await?;
        Ok(made)
    }

    async fn invite_user(
        &self,
        owner: Option<AccountId>,
        id: UserId,
        pending_reply: Option<PendingReply<WithToken<User>>>,
    ) -> Result<WithToken<User>, StoreError> {
        let now = self.now();
        let mut client = self.client_for(owner).await?;
        let tx = client.transaction().await?;
        let account = key_of(&tx, owner).await?;
        let token = self.draw_token();
        let sql = "UPDATE users SET invitation = $3, invited_until = $4, updated_at = $5 WHERE id = $1 \
                   AND account IS NOT DISTINCT FROM $2";
        let until = invitation_end(now);
        if execute(&tx, sql, &[&id.0, &account, &hash_of(&token), &until, &now.as_millis()]).await? == 0 {
            return Err(StoreError::NotFound);
        }
        let invited = WithToken { resource: by_id(&tx, id).await?, token: Some(token) };
        self.audit(&tx, &AuditRecord::of_user(&invited.resource, Action::UserInvited), now).await?;
        write_pending_reply(&tx, pending_reply, &invited, now).await?;
        tx.commit().await?;
        Ok(invited)
    }

    async fn users(&self, owner: Option<AccountId>, page: Page) -> Result<Paged<User>, StoreError> {
        let mut client = self.reader(owner).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let account = key_of(&db, owner).await?;
            let sql = "SELECT count(*) AS total FROM users WHERE account IS NOT DISTINCT FROM $1";
            let total = count(&db, sql, &[&account]).await?;
            let sql = format!(
                "SELECT {COLUMNS} FROM {FROM} WHERE u.account IS NOT DISTINCT FROM $1 ORDER BY u.key LIMIT $2 OFFSET $3"
            );
            let found = rows(&db, &sql, &[&account, &i64::from(page.limit()), &offset(page)]).await?;
            Ok(Paged::exact(found.iter().map(user_from_row).collect::<Result<_, _>>()?, total))
        }
        .await;
        client.end(found)
    }

    async fn user(&self, owner: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        let db = self.client_for(owner).await?;
        let account = key_of(&*db, owner).await?;
        find(&*db, account, id).await
    }

    async fn update_user(&self, owner: Option<AccountId>, id: UserId, role: Role) -> Result<User, StoreError> {
        let now = self.now();
        let mut client = self.client_for(owner).await?;
        let tx = client.transaction().await?;
        let account = lock_owners(&tx, owner).await?;
        let user = find(&tx, account, id).await?;
        if user.role != role {
            check_not_last(&tx, &user).await?;
        }
        let sql = "UPDATE users SET role = $2, updated_at = $3 WHERE id = $1";
        execute(&tx, sql, &[&id.0, &role.name(), &now.as_millis()]).await?;
        self.audit(&tx, &AuditRecord::of_user(&user, Action::UserUpdated).with_fields(&["role"]), now).await?;
        let changed = by_id(&tx, id).await?;
        tx.commit().await?;
        Ok(changed)
    }

    async fn delete_user(&self, owner: Option<AccountId>, id: UserId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client_for(owner).await?;
        let tx = client.transaction().await?;
        let account = lock_owners(&tx, owner).await?;
        let user = find(&tx, account, id).await?;
        check_not_last(&tx, &user).await?;
        // The user first: whoever signs in at this moment is waited for, and their session is seen.
        let key: i64 = get(&one(&tx, "DELETE FROM users WHERE id = $1 RETURNING key", &[&id.0]).await?, "key")?;
        end_sessions(&tx, &[key], None).await?;
        self.audit(&tx, &AuditRecord::of_user(&user, Action::UserDeleted), now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn reset_second_factor(&self, owner: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let account = key_of(&tx, owner).await?;
        let sql = "UPDATE users SET factor_key_id = NULL, factor_sealed = NULL, factor_reset_at = $3, updated_at = $3 \
                   WHERE id = $1 AND account IS NOT DISTINCT FROM $2 AND factor_sealed IS NOT NULL RETURNING key";
        let key: i64 = get(&one(&tx, sql, &[&id.0, &account, &now.as_millis()]).await?, "key")?;
        end_sessions(&tx, &[key], None).await?;
        let user = by_id(&tx, id).await?;
        self.audit(&tx, &AuditRecord::of_user(&user, Action::UserFactorReset), now).await?;
        tx.commit().await?;
        Ok(user)
    }
}

impl SignIn for Store {
    async fn credentials_of(&self, id: UserId) -> Result<Option<SignInCredentials>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, {SIGN_IN} FROM {FROM} WHERE u.id = $1 AND {THERE}");
        let found = row(&self.client().await?, &sql, &[&id.0]).await?;
        found.map(|found| self.credentials_from_row(&found)).transpose()
    }

    async fn confirm(&self, user: UserId, proof: Proof, session: KeyHash) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        confirm(&tx, user, proof, session).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn sign_in(&self, user: UserId, proof: Proof, lives: Duration) -> Result<PlainKey, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        // Of two that come with the same step at once, one waits here, and finds it taken.
        let (hash, step) = match proof {
            Proof::Password(PasswordHash(hash), step) => (Some(hash), step),
            Proof::Trusted => (None, None),
        };
        let sql = "UPDATE users SET last_sign_in_at = $2, factor_step = coalesce($4::bigint, factor_step) \
                   WHERE id = $1 AND ($3::text IS NULL OR password = $3::text \
                   AND (factor_sealed IS NULL) = ($4::bigint IS NULL)) AND ($4::bigint IS NULL \
                   OR factor_step < $4::bigint) RETURNING key, account";
        let found = one(&tx, sql, &[&user.0, &now.as_millis(), &hash, &step]).await?;
        let (key, account): (i64, Option<i64>) = (get(&found, "key")?, get(&found, "account")?);
        let token = self.draw_token();
        add_session(&tx, key, &token, (now, now.plus(lives)), false).await?;
        self.audit(&tx, &AuditRecord::of(account.map(AccountKey), Action::UserSignedIn, user), now).await?;
        tx.commit().await?;
        Ok(token)
    }

    async fn session(&self, token: KeyHash, idle: Duration, touch: bool) -> Result<Option<User>, StoreError> {
        let (now, token) = (self.now(), token.as_bytes().as_slice());
        let db = self.client().await?;
        let sql = format!(
            "SELECT {COLUMNS}, s.seen_at FROM {FROM} JOIN sessions s ON s.owner = u.key \
             WHERE s.token = $1 AND NOT s.offered AND s.expires_at > $2 AND s.seen_at > $3 AND {THERE}"
        );
        let found = row(&db, &sql, &[&token, &now.as_millis(), &now.minus(idle).as_millis()]).await?;
        let Some(found) = found else { return Ok(None) };
        let user = user_from_row(&found)?;
        // Not at each use, but often enough that one that is used does not idle out.
        if !touch || now.since(when(&found, "seen_at")?) < SESSION_SEEN_INTERVAL.min(idle / 2) {
            return Ok(Some(user));
        }
        let sql = "UPDATE sessions SET seen_at = greatest(seen_at, $2) WHERE token = $1";
        let touched = execute(&db, sql, &[&token, &now.as_millis()]).await?;
        // It may have been ended since it was looked up.
        Ok((touched > 0).then_some(user))
    }

    async fn sign_out(&self, token: KeyHash) -> Result<(), StoreError> {
        let sql = "DELETE FROM sessions WHERE token = $1";
        execute(&self.client().await?, sql, &[&token.as_bytes().as_slice()]).await?;
        Ok(())
    }

    async fn change_sign_in(
        &self,
        user: UserId,
        change: SignInChange,
        proof: Proof,
        session: KeyHash,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        if let SignInChange::Password(password) = &change {
            let email = by_id(&tx, user).await?.email;
            check_recipe(&tx, &email, user, password).await?;
        }
        let (key, account) = confirm(&tx, user, proof, session).await?;
        let mut stays = Some(session);
        let record = |action| AuditRecord::of(account.map(AccountKey), action, user);
        let at = now.as_millis();
        let record = match change {
            SignInChange::Password(PasswordHash(hash)) => {
                let sql = "UPDATE users SET password = $2, invitation = NULL, invited_until = NULL, updated_at = $3 \
                           WHERE key = $1";
                execute(&tx, sql, &[&key, &hash, &at]).await?;
                record(Action::UserUpdated).with_fields(&["password"])
            }
            SignInChange::SecondFactor(secret, step) => {
                let sealed = self.shared.keyring().seal(&secret, user.0, self.shared.random.array());
                let sql = "UPDATE users SET factor_key_id = $2, factor_sealed = $3, factor_step = $4, \
                           factor_reset_at = NULL, updated_at = $5 WHERE key = $1";
                execute(&tx, sql, &[&key, &sealed.key_id, &sealed.bytes, &step, &at]).await?;
                record(Action::UserUpdated).with_fields(&["two_factor"])
            }
            SignInChange::NoSecondFactor => {
                let sql = "UPDATE users SET factor_key_id = NULL, factor_sealed = NULL, updated_at = $2 WHERE key = $1";
                execute(&tx, sql, &[&key, &at]).await?;
                record(Action::UserUpdated).with_fields(&["two_factor"])
            }
            SignInChange::ResetSeen => {
                execute(&tx, "UPDATE users SET factor_reset_at = NULL WHERE key = $1", &[&key]).await?;
                return Ok(tx.commit().await?);
            }
            SignInChange::Sessions => {
                stays = None;
                let sql = "UPDATE users SET invitation = NULL, invited_until = NULL WHERE key = $1";
                execute(&tx, sql, &[&key]).await?;
                record(Action::UserSignedOut)
            }
        };
        end_sessions(&tx, &[key], stays).await?;
        self.audit(&tx, &record, now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn invited(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.invitation = $1 AND u.invited_until > $2 AND {THERE}");
        let parameters: super::sql::Params<'_> = &[&token.as_bytes().as_slice(), &self.now().as_millis()];
        row(&self.client().await?, &sql, parameters).await?.as_ref().map(user_from_row).transpose()
    }

    async fn join(&self, token: KeyHash, password: PasswordHash, step: Option<i64>) -> Result<User, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = "UPDATE users SET password = $3, invitation = NULL, invited_until = NULL, updated_at = $2 \
                   WHERE invitation = $1 AND invited_until > $2 RETURNING key, id";
        let invited =
            one(&tx, "SELECT id, email FROM users WHERE invitation = $1", &[&token.as_bytes().as_slice()]).await?;
        let email = Email::parse(get(&invited, "email")?).ok_or_else(|| corrupt("email"))?;
        check_recipe(&tx, &email, UserId(get(&invited, "id")?), &password).await?;
        let found = one(&tx, sql, &[&token.as_bytes().as_slice(), &now.as_millis(), &password.0]).await?;
        let (key, id): (i64, _) = (get(&found, "key")?, get(&found, "id")?);
        take_step(&tx, key, step).await?;
        end_sessions(&tx, &[key], None).await?;
        let user = by_id(&tx, UserId(id)).await?;
        self.audit(&tx, &AuditRecord::of_user(&user, Action::UserJoined), now).await?;
        tx.commit().await?;
        Ok(user)
    }
}

impl Store {
    pub(super) fn credentials_from_row(&self, row: &Row) -> Result<SignInCredentials, StoreError> {
        let user = user_from_row(row)?;
        let sealed = match get::<Option<String>>(row, "factor_key_id")? {
            Some(key_id) => Some(SealedSecret { key_id, bytes: get(row, "factor_sealed")? }),
            None => None,
        };
        let second_factor = self.shared.open_factor(sealed.as_ref(), user.id);
        let password = get::<Option<String>>(row, "password")?.map(PasswordHash);
        Ok(SignInCredentials { user, password, second_factor })
    }

    /// Seals second factors with the current master key. Returns how many were sealed anew.
    pub(super) async fn reseal_factors(&self, tx: &Transaction<'_>, keyring: &Keyring) -> Result<u64, StoreError> {
        let sql =
            "SELECT key, id, factor_key_id, factor_sealed FROM users WHERE factor_key_id <> $1 ORDER BY key FOR UPDATE";
        let stale = rows(tx, sql, &[&keyring.current_id()]).await?;
        for row in &stale {
            let id = UserId(get(row, "id")?);
            let old = SealedSecret { key_id: get(row, "factor_key_id")?, bytes: get(row, "factor_sealed")? };
            let secret = keyring.open(&old, id.0).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let new = keyring.seal(&secret, id.0, self.shared.random.array());
            let sql = "UPDATE users SET factor_key_id = $2, factor_sealed = $3 WHERE key = $1";
            execute(tx, sql, &[&get::<i64>(row, "key")?, &new.key_id, &new.bytes]).await?;
        }
        Ok(stale.len() as u64)
    }

    pub(super) fn draw_token(&self) -> PlainKey {
        PlainKey::from_random("", self.shared.random.array())
    }
}

/// Removes the users of an account, their sessions and the links into its pages. The account's row is locked.
pub(super) async fn forget(tx: &impl GenericClient, account: AccountKey) -> Result<(), StoreError> {
    let mut users = Vec::<i64>::new();
    let sql = "SELECT key FROM users WHERE account = $1 ORDER BY key FOR UPDATE";
    for user in rows(tx, sql, &[&account.0]).await? {
        users.push(get(&user, "key")?);
    }
    execute(tx, "DELETE FROM users WHERE key = ANY($1)", &[&users]).await?;
    end_sessions(tx, &users, None).await?;
    execute(tx, "DELETE FROM portal_links WHERE account = $1", &[&account.0]).await?;
    Ok(())
}

/// Adds a session that begins and ends at these times.
pub(super) async fn add_session(
    tx: &Transaction<'_>,
    user: i64,
    token: &PlainKey,
    (from, to): (Timestamp, Timestamp),
    offered: bool,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions (token, owner, seen_at, expires_at, offered) VALUES ($1, $2, $3, $4, $5)";
    let token = hash_of(token);
    execute(tx, sql, &[&token, &user, &from.as_millis(), &to.as_millis(), &offered]).await?;
    end_oldest(tx, &token).await
}

/// Ends the sessions that the user of this one has beyond [`MAX_SESSIONS`], those that were unused longest; or offers,
/// where this is one. This one stays. The user's row is locked, so that nobody opens another meanwhile.
pub(super) async fn end_oldest(tx: &Transaction<'_>, token: &[u8]) -> Result<(), StoreError> {
    let sql = format!(
        "DELETE FROM sessions WHERE token IN (SELECT o.token FROM sessions s \
         JOIN sessions o ON o.owner = s.owner AND o.offered = s.offered WHERE s.token = $1 \
         ORDER BY o.token = $1 DESC, o.seen_at DESC OFFSET {MAX_SESSIONS})"
    );
    execute(tx, &sql, &[&token]).await?;
    Ok(())
}

/// When an invitation that is made now ends.
fn invitation_end(now: Timestamp) -> i64 {
    now.plus(INVITATION_LIFE).as_millis()
}

/// Holds what was proved against what there is now: the session, the password, and the second factor, whose time step
/// is taken. The user's row stays until the transaction ends. Returns its key, and its account's.
async fn confirm(
    tx: &Transaction<'_>,
    user: UserId,
    proof: Proof,
    session: KeyHash,
) -> Result<(i64, Option<i64>), StoreError> {
    let (hash, step) = match proof {
        Proof::Password(PasswordHash(hash), step) => (Some(hash), Some(step)),
        Proof::Trusted => (None, None),
    };
    let sql = "SELECT key, account FROM users WHERE id = $1 AND ($2::text IS NULL OR password = $2::text) FOR UPDATE";
    let found = one(tx, sql, &[&user.0, &hash]).await?;
    let (key, account): (i64, Option<i64>) = (get(&found, "key")?, get(&found, "account")?);
    // Whoever ends sessions has the user's row: from here on it stays.
    let token = session.as_bytes().as_slice();
    one(tx, "SELECT owner FROM sessions WHERE token = $1 AND owner = $2 AND NOT offered", &[&token, &key]).await?;
    if let Some(step) = step {
        take_step(tx, key, step).await?;
    }
    Ok((key, account))
}

/// Takes a time step of the user's second factor, once; without a step the user must have no second factor.
pub(super) async fn take_step(tx: &Transaction<'_>, user: i64, step: Option<i64>) -> Result<(), StoreError> {
    let sql = "UPDATE users SET factor_step = coalesce($2::bigint, factor_step) WHERE key = $1 \
               AND (factor_sealed IS NULL) = ($2::bigint IS NULL) AND ($2::bigint IS NULL OR factor_step < $2::bigint)";
    if execute(tx, sql, &[&user, &step]).await? == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// What the database keeps of a token.
pub(super) fn hash_of(token: &PlainKey) -> Vec<u8> {
    KeyHash::of(token.reveal()).as_bytes().to_vec()
}

/// The account's row; none of the operators'.
async fn key_of(db: &impl GenericClient, owner: Option<AccountId>) -> Result<Option<i64>, StoreError> {
    match owner {
        Some(id) => Ok(Some(account(db, id).await?.key.0)),
        None => Ok(None),
    }
}

/// The same, for whoever may take an owner away: two of them wait for each other, so that each sees who is left.
async fn lock_owners(tx: &Transaction<'_>, owner: Option<AccountId>) -> Result<Option<i64>, StoreError> {
    match owner {
        Some(id) => Ok(Some(lock_account(tx, id).await?.key.0)),
        None => {
            rows(tx, "SELECT key FROM users WHERE account IS NULL ORDER BY key FOR UPDATE", &[]).await?;
            Ok(None)
        }
    }
}

/// One user of the account, or an operator; another account's does not exist.
async fn find(db: &impl GenericClient, account: Option<i64>, id: UserId) -> Result<User, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE u.id = $1 AND u.account IS NOT DISTINCT FROM $2");
    user_from_row(&one(db, &sql, &[&id.0, &account]).await?)
}

/// One user, whosever they are.
async fn by_id(db: &impl GenericClient, id: UserId) -> Result<User, StoreError> {
    user_from_row(&one(db, &format!("SELECT {COLUMNS} FROM {FROM} WHERE u.id = $1"), &[&id.0]).await?)
}

/// Refuses where nobody would be left who can do everything. Who has not joined cannot do anything yet.
async fn check_not_last(tx: &Transaction<'_>, user: &User) -> Result<(), StoreError> {
    if !user.joined || !matches!(user.role, Role::Owner | Role::Operator) {
        return Ok(());
    }
    let sql = "SELECT 1 FROM users WHERE account IS NOT DISTINCT FROM $1 AND role = $2 AND password IS NOT NULL \
               AND id <> $3 LIMIT 1";
    let account = user.account.map(|(_, key)| key.0);
    let other = row(tx, sql, &[&account, &user.role.name(), &user.id.0]).await?;
    if other.is_some() { Ok(()) } else { Err(StoreError::LastOwner) }
}

/// Ends the sessions of users whose rows are locked, all but one.
async fn end_sessions(tx: &impl GenericClient, users: &[i64], stays: Option<KeyHash>) -> Result<(), StoreError> {
    let stays = stays.map(|token| token.as_bytes().to_vec());
    let sql = "DELETE FROM sessions WHERE owner = ANY($1) AND token IS DISTINCT FROM $2";
    execute(tx, sql, &[&users, &stays]).await?;
    Ok(())
}

pub(super) fn user_from_row(row: &Row) -> Result<User, StoreError> {
    read_row("users", row, |row| {
        let account = match get::<Option<i64>>(row, "account")? {
            Some(key) => Some((AccountId(get(row, "account_id")?), AccountKey(key))),
            None => None,
        };
        Ok(User {
            id: UserId(get(row, "id")?),
            account,
            email: Email::parse(get(row, "email")?).ok_or_else(|| corrupt("email"))?,
            role: Role::parse(get(row, "role")?).ok_or_else(|| corrupt("role"))?,
            joined: get(row, "joined")?,
            two_factor: get(row, "two_factor")?,
            invited_until: time(row, "invited_until")?,
            factor_reset_at: time(row, "factor_reset_at")?,
            last_sign_in_at: time(row, "last_sign_in_at")?,
            created_at: when(row, "created_at")?,
            updated_at: when(row, "updated_at")?,
        })
    })
}

/// Tells the locks of addresses from other locks.
pub(super) const ADDRESS_LOCKS: i64 = 0x616c_6461_6264;

/// Refuses a password that is hashed unlike those of other users with the address: a sign-in hashes once for all of
/// them. Whoever sets a password of the address meanwhile waits until the transaction ends.
pub(super) async fn check_recipe(
    tx: &Transaction<'_>,
    email: &Email,
    user: UserId,
    password: &PasswordHash,
) -> Result<(), StoreError> {
    let sql = "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))";
    execute(tx, sql, &[&email.as_str(), &ADDRESS_LOCKS]).await?;
    let sql = "SELECT 1 FROM users WHERE email = $1 AND id <> $2 AND password IS NOT NULL \
               AND left(password, length($3::text) + 1) <> $3::text || '$' LIMIT 1";
    let other = row(tx, sql, &[&email.as_str(), &user.0, &password.recipe()]).await?;
    if other.is_some() { Err(StoreError::OtherRecipe) } else { Ok(()) }
}
