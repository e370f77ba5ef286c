//! The store, as far as people are concerned: users and what they sign in with, portal links, and the counts that charts show.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Credentials, Keep, NewPortalLink, NewUser, Page, Paged, PasswordHash, Proof, SignInChange, Store, StoreError,
    Which, WithToken, postgres,
};
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::id::{AccountId, EndpointId, PortalLinkId, UserId};
use crate::domain::secret::Keyring;
use crate::domain::statistics::{Count, Counted};
use crate::domain::time::Timestamp;
use crate::domain::user::{Email, PortalLink, Role, User};

impl Store {
    /// Makes a user. Without a password they are invited: the token of the invitation is in this answer only.
    ///
    /// An address that the account's users have is [`StoreError::Exists`]; other accounts may have users with it. A password that
    /// is hashed unlike those of other users with the address is [`StoreError::OtherRecipe`].
    pub async fn create_user(
        &self,
        new: NewUser,
        keep: Option<Keep<WithToken<User>>>,
    ) -> Result<WithToken<User>, StoreError> {
        on!(self, create_user(new, keep))
    }

    /// Invites a user again, who may have joined long ago: whoever has the token sets a new password. The invitation ends
    /// after [`super::INVITATION_LIFE`], or at `until` if that is sooner.
    pub async fn invite_user(
        &self,
        account: Option<AccountId>,
        id: UserId,
        until: Option<Timestamp>,
        keep: Option<Keep<WithToken<User>>>,
    ) -> Result<WithToken<User>, StoreError> {
        on!(self, invite_user(account, id, until, keep))
    }

    /// Turns off a user's second factor for somebody else, ends all their sessions, and notes that the user has to be told.
    /// Where there is none it is [`StoreError::NotFound`].
    pub async fn reset_second_factor(&self, account: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        on!(self, reset_second_factor(account, id))
    }

    /// Users of an account, the oldest first; of no account, the operators.
    pub async fn users(&self, account: Option<AccountId>, page: Page) -> Result<Paged<User>, StoreError> {
        on!(self, users(account, page))
    }

    /// One user of an account, or an operator.
    pub async fn user(&self, account: Option<AccountId>, id: UserId) -> Result<User, StoreError> {
        on!(self, user(account, id))
    }

    /// Gives a user another role. An account's last owner stays one: [`StoreError::LastOwner`].
    pub async fn update_user(&self, account: Option<AccountId>, id: UserId, role: Role) -> Result<User, StoreError> {
        on!(self, update_user(account, id, role))
    }

    /// Deletes a user, and ends their sessions. An account's last owner stays: [`StoreError::LastOwner`].
    pub async fn delete_user(&self, account: Option<AccountId>, id: UserId) -> Result<(), StoreError> {
        on!(self, delete_user(account, id))
    }

    /// What this user signs in with.
    pub async fn credentials_of(&self, id: UserId) -> Result<Option<Credentials>, StoreError> {
        on!(self, credentials_of(id))
    }

    /// Checks what a user has proved in this session for one step, and takes the time step of the second factor. A session that
    /// has ended, a password or second factor that was changed meanwhile, or a time step that was used before, is
    /// [`StoreError::NotFound`].
    pub async fn confirm(&self, user: UserId, proof: Proof, session: KeyHash) -> Result<(), StoreError> {
        on!(self, confirm(user, proof, session))
    }

    /// The hash of the password of whichever user with this address has one: by its recipe every password of theirs is hashed, so
    /// that one hash is enough to find which of them a password opens.
    pub async fn password_of_address(&self, email: Email) -> Result<Option<PasswordHash>, StoreError> {
        on!(self, password_of_address(email))
    }

    /// The users with this address and this password, those who signed in last first, up to a bound.
    pub async fn opened_by(&self, email: Email, password: PasswordHash) -> Result<Vec<Credentials>, StoreError> {
        on!(self, opened_by(email, password))
    }

    /// The users of all accounts with this address: for whoever runs the server.
    pub async fn users_with(&self, email: Email) -> Result<Vec<User>, StoreError> {
        on!(self, users_with(email))
    }

    /// Writes down that somebody tried to sign in as this user and these were wrong. The caller bounds how often.
    pub async fn note_failed_sign_in(&self, user: User, wrong: &'static str) -> Result<(), StoreError> {
        on!(self, note_failed_sign_in(user, wrong))
    }

    /// The master keys: they sign what a browser keeps for us.
    pub fn keyring(&self) -> Arc<Keyring> {
        match &self.0 {
            Which::Sqlite(store) => store.keyring(),
            Which::Postgres(store) => store.keyring(),
        }
    }

    /// Offers a session to somebody whose password opens several accounts, as [`Store::sign_in`] opens one. Until it is taken it
    /// is no session, and nobody can see that it was offered.
    pub async fn offer_sign_in(&self, user: UserId, proof: Proof) -> Result<PlainKey, StoreError> {
        on!(self, offer_sign_in(user, proof))
    }

    /// To whom a session is offered by this token.
    pub async fn offered(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        on!(self, offered(token))
    }

    /// Takes a session that was offered, which lives for so long at most, and withdraws the others. One that has ended is
    /// [`StoreError::NotFound`].
    pub async fn take_offer(&self, token: KeyHash, others: Vec<KeyHash>, lives: Duration) -> Result<(), StoreError> {
        on!(self, take_offer(token, others, lives))
    }

    /// Opens a session that lives for so long at most; its token is in this answer only. A password or second factor that was
    /// changed meanwhile, or a time step that was used before, is [`StoreError::NotFound`].
    pub async fn sign_in(&self, user: UserId, proof: Proof, lives: Duration) -> Result<PlainKey, StoreError> {
        on!(self, sign_in(user, proof, lives))
    }

    /// Whose session this token is, if it has not ended and was used within the last `idle`. With `touch` it is used now.
    pub async fn session(&self, token: KeyHash, idle: Duration, touch: bool) -> Result<Option<User>, StoreError> {
        on!(self, session(token, idle, touch))
    }

    /// Ends a session.
    pub async fn sign_out(&self, token: KeyHash) -> Result<(), StoreError> {
        on!(self, sign_out(token))
    }

    /// Changes what a user signs in with, from this session, and ends all their others. What is not proved as for
    /// [`Store::confirm`] is [`StoreError::NotFound`], a new password with another recipe [`StoreError::OtherRecipe`].
    pub async fn change_sign_in(
        &self,
        user: UserId,
        change: SignInChange,
        proof: Proof,
        session: KeyHash,
    ) -> Result<(), StoreError> {
        on!(self, change_sign_in(user, change, proof, session))
    }

    /// Whom this invitation invites.
    pub async fn invited(&self, token: KeyHash) -> Result<Option<User>, StoreError> {
        on!(self, invited(token))
    }

    /// Takes an invitation, once: sets the password and ends all sessions of the user. A second factor stays: whoever has one
    /// gives the time step of its code, which is not taken again. A password that is hashed unlike those of other users with the
    /// address is [`StoreError::OtherRecipe`].
    pub async fn join(&self, token: KeyHash, password: PasswordHash, step: Option<i64>) -> Result<User, StoreError> {
        on!(self, join(token, password, step))
    }

    /// Makes a link into an account's pages; its token is in this answer only.
    pub async fn create_portal_link(
        &self,
        new: NewPortalLink,
        keep: Option<Keep<WithToken<PortalLink>>>,
    ) -> Result<WithToken<PortalLink>, StoreError> {
        on!(self, create_portal_link(new, keep))
    }

    /// The link of this token, if it has not ended.
    pub async fn portal_link(&self, token: KeyHash) -> Result<Option<PortalLink>, StoreError> {
        on!(self, portal_link(token))
    }

    /// The links into an account's pages that have not ended, those that live longest first.
    pub async fn portal_links(&self, account: AccountId, page: Page) -> Result<Paged<PortalLink>, StoreError> {
        on!(self, portal_links(account, page))
    }

    /// Writes down that a link is opened, and that in the audit log, where it was not before.
    pub async fn open_portal_link(&self, token: KeyHash) -> Result<(), StoreError> {
        on!(self, open_portal_link(token))
    }

    /// Ends a link of the account before its time.
    pub async fn delete_portal_link(&self, account: AccountId, id: PortalLinkId) -> Result<(), StoreError> {
        on!(self, delete_portal_link(account, id))
    }

    /// Forgets a step of sessions and portal links that have ended. Returns whether there may be more.
    pub async fn purge_sessions(&self, idle: Duration) -> Result<bool, StoreError> {
        on!(self, purge_sessions(idle))
    }

    /// Forgets a step of counts that no chart shows any more. Returns whether there may be more.
    pub async fn purge_attempt_counts(&self, now: Timestamp) -> Result<bool, StoreError> {
        on!(self, purge_attempt_counts(now))
    }
}
