//! What both stores select of users and portal links, and which of their rows count.

/// A user's columns, without what they sign in with.
pub(super) const COLUMNS: &str = "u.id, u.account, u.email, u.role, u.password IS NOT NULL AS joined, \
                                  u.factor_sealed IS NOT NULL AS two_factor, u.invited_until, u.factor_reset_at, \
                                  u.last_sign_in_at, u.created_at, u.updated_at, a.id AS account_id";

/// Columns of what a user signs in with.
pub(super) const SIGN_IN: &str = "u.password, u.factor_key_id, u.factor_sealed";

/// Users with their accounts.
pub(super) const FROM: &str = "users u LEFT JOIN accounts a ON a.key = u.account";

/// A server of the last version does not know of users when it deletes an account.
pub(super) const THERE: &str = "(u.account IS NULL OR a.id IS NOT NULL AND a.deleted_at IS NULL)";

/// Portal links whose account is there.
pub(super) const LINKS: &str = "SELECT p.id, p.permissions, p.brand, p.color, p.frame_origins, p.expires_at, \
                                p.opened_at, a.id AS account_id \
                                FROM portal_links p JOIN accounts a ON a.key = p.account AND a.deleted_at IS NULL";
