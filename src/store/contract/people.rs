//! The roles for people: users, sign-in, one person in several accounts, and portal links.

use std::time::Duration;

use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::id::{AccountId, PortalLinkId, UserId};
use crate::domain::user::{Email, PortalLink, Role, User};
use crate::store::errors::StoreError;
use crate::store::values::{
    NewPortalLink, NewUser, Page, Paged, PasswordHash, PendingReply, Proof, SignInChange, SignInCredentials, WithToken,
};

role! {
    /// Users of accounts, and operators.
    pub trait Users {
        /// Makes a user. Without a password they are invited: the token of the invitation is in this answer only.
        ///
        /// An address that the account's users have is [`StoreError::Exists`]; other accounts may have users with it. A
        /// password that is hashed unlike those of other users with the address is [`StoreError::OtherRecipe`].
        async fn create_user(
            &self,
            new: NewUser,
            pending_reply: Option<PendingReply<WithToken<User>>>,
        ) -> Result<WithToken<User>, StoreError>;

        /// Invites a user again, who may have joined long ago: whoever has the token sets a new password. The
        /// invitation ends after [`INVITATION_LIFE`](crate::store::INVITATION_LIFE).
        async fn invite_user(
            &self,
            account: Option<AccountId>,
            id: UserId,
            pending_reply: Option<PendingReply<WithToken<User>>>,
        ) -> Result<WithToken<User>, StoreError>;

        /// Users of an account, the oldest first; of no account, the operators.
        async fn users(&self, account: Option<AccountId>, page: Page) -> Result<Paged<User>, StoreError>;

        /// One user of an account, or an operator.
        async fn user(&self, account: Option<AccountId>, id: UserId) -> Result<User, StoreError>;

        /// Gives a user another role. An account's last owner stays one: [`StoreError::LastOwner`].
        async fn update_user(&self, account: Option<AccountId>, id: UserId, role: Role) -> Result<User, StoreError>;

        /// Deletes a user, and ends their sessions. An account's last owner stays: [`StoreError::LastOwner`].
        async fn delete_user(&self, account: Option<AccountId>, id: UserId) -> Result<(), StoreError>;

        /// Turns off a user's second factor for somebody else, ends all their sessions, and notes that the user has to
        /// be told. Where there is none it is [`StoreError::NotFound`].
        async fn reset_second_factor(&self, account: Option<AccountId>, id: UserId) -> Result<User, StoreError>;
    }
}

role! {
    /// What users sign in with, their sessions and their invitations.
    pub trait SignIn {
        /// What this user signs in with.
        async fn credentials_of(&self, id: UserId) -> Result<Option<SignInCredentials>, StoreError>;

        /// Checks what a user has proved in this session for one step, and takes the time step of the second factor. A
        /// session that has ended, a password or second factor that was changed meanwhile, or a time step that was used
        /// before, is [`StoreError::NotFound`].
        async fn confirm(&self, user: UserId, proof: Proof, session: KeyHash) -> Result<(), StoreError>;

        /// Opens a session that lives for so long at most; its token is in this answer only. A password or second
        /// factor that was changed meanwhile, or a time step that was used before, is [`StoreError::NotFound`]. Beyond
        /// [`MAX_SESSIONS`](crate::store::MAX_SESSIONS) of the user, the session that was unused longest ends.
        async fn sign_in(&self, user: UserId, proof: Proof, lives: Duration) -> Result<PlainKey, StoreError>;

        /// Whose session this token is, if it has not ended and was used within the last `idle`. With `touch` it is
        /// used now.
        async fn session(&self, token: KeyHash, idle: Duration, touch: bool) -> Result<Option<User>, StoreError>;

        /// Ends a session.
        async fn sign_out(&self, token: KeyHash) -> Result<(), StoreError>;

        /// Changes what a user signs in with, from this session, and ends all their others. What is not proved as for
        /// [`SignIn::confirm`] is [`StoreError::NotFound`], a new password with another recipe
        /// [`StoreError::OtherRecipe`].
        async fn change_sign_in(
            &self,
            user: UserId,
            change: SignInChange,
            proof: Proof,
            session: KeyHash,
        ) -> Result<(), StoreError>;

        /// Whom this invitation invites.
        async fn invited(&self, token: KeyHash) -> Result<Option<User>, StoreError>;

        /// Takes an invitation, once: sets the password and ends all sessions of the user. A second factor stays:
        /// whoever has one gives the time step of its code, which is not taken again. A password that is hashed unlike
        /// those of other users with the address is [`StoreError::OtherRecipe`].
        async fn join(&self, token: KeyHash, password: PasswordHash, step: Option<i64>) -> Result<User, StoreError>;
    }
}

role! {
    /// People who are users of several accounts.
    pub trait Memberships {
        /// The hash of the password of whichever user with this address has one. Every password of theirs is hashed by
        /// its recipe, so that one hash is enough to find which of them a password opens.
        async fn password_of_address(&self, email: Email) -> Result<Option<PasswordHash>, StoreError>;

        /// The users with this address and this password, those who signed in last first, up to a bound.
        async fn opened_by(&self, email: Email, password: PasswordHash) -> Result<Vec<SignInCredentials>, StoreError>;

        /// The users of all accounts with this address, for operators.
        async fn users_with(&self, email: Email) -> Result<Vec<User>, StoreError>;

        /// Writes into the audit log that somebody tried to sign in as this user, and what was wrong. The caller bounds
        /// how often.
        async fn note_failed_sign_in(&self, user: User, wrong: &'static str) -> Result<(), StoreError>;

        /// Offers a session to somebody whose password opens several accounts, as [`SignIn::sign_in`] opens one. Until
        /// it is taken it is no session, and nobody can see that it was offered. Offers end no sessions, and are as
        /// many as those at most.
        async fn offer_sign_in(&self, user: UserId, proof: Proof) -> Result<PlainKey, StoreError>;

        /// To whom a session is offered by this token.
        async fn offered(&self, token: KeyHash) -> Result<Option<User>, StoreError>;

        /// Takes a session that was offered, which lives for so long at most, and withdraws the others. An offer that
        /// has ended is [`StoreError::NotFound`].
        async fn take_offer(&self, token: KeyHash, others: Vec<KeyHash>, lives: Duration) -> Result<(), StoreError>;
    }
}

role! {
    /// Links into an account's pages for somebody who is no user.
    pub trait PortalLinks {
        /// Makes a link into an account's pages; its token is in this answer only.
        async fn create_portal_link(
            &self,
            new: NewPortalLink,
            pending_reply: Option<PendingReply<WithToken<PortalLink>>>,
        ) -> Result<WithToken<PortalLink>, StoreError>;

        /// The link of this token, if it has not ended.
        async fn portal_link(&self, token: KeyHash) -> Result<Option<PortalLink>, StoreError>;

        /// The links into an account's pages that have not ended, those that live longest first.
        async fn portal_links(&self, account: AccountId, page: Page) -> Result<Paged<PortalLink>, StoreError>;

        /// Notes that a link is opened, in its row and in the audit log, where it was not noted before.
        async fn open_portal_link(&self, token: KeyHash) -> Result<(), StoreError>;

        /// Ends a link of the account before its time.
        async fn delete_portal_link(&self, account: AccountId, id: PortalLinkId) -> Result<(), StoreError>;
    }
}
