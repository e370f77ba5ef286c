//! Portal links: they open an account's pages to somebody who is no user.

use rusqlite::{OptionalExtension as _, Row, params};

use super::catalog_rows::account;
use super::columns::{count, parsed, read_row, sql_offset, time, uuid};
use super::store::Store;
use super::users::draw_token;
use crate::domain::account::KeyHash;
use crate::domain::audit::Action;
use crate::domain::id::{AccountId, AccountKey, PortalLinkId};
use crate::domain::permission::Permissions;
use crate::domain::time::Timestamp;
use crate::domain::user::{Color, PortalLink};
use crate::store::contract::PortalLinks;
use crate::store::errors::StoreError;
use crate::store::people_rows::LINKS;
use crate::store::shared::{AuditRecord, words};
use crate::store::values::{NewPortalLink, Page, Paged, PendingReply, WithToken};

impl PortalLinks for Store {
    async fn create_portal_link(
        &self,
        new: NewPortalLink,
        pending_reply: Option<PendingReply<WithToken<PortalLink>>>,
    ) -> Result<WithToken<PortalLink>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = account(tx.db, new.account)?;
                let id = PortalLinkId::from_random(tx.shared.random.array());
                let token = draw_token(tx);
                let sql = "INSERT INTO portal_links (token, id, account, permissions, brand, color, frame_origins, \
                           expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
                tx.db.prepare_cached(sql)?.execute(params![
                    KeyHash::of(token.reveal()).as_bytes(),
                    id.0.as_bytes(),
                    account.key.0,
                    new.permissions.to_column(),
                    new.brand,
                    new.color.map(|color| color.to_string()),
                    new.frame_origins.join(" "),
                    new.expires_at.as_millis(),
                ])?;
                let NewPortalLink { account: owner, permissions, brand, color, frame_origins, expires_at } = new;
                let resource = PortalLink {
                    id,
                    account: owner,
                    permissions,
                    brand,
                    color,
                    frame_origins,
                    expires_at,
                    opened_at: None,
                };
                let made = WithToken { resource, token: Some(token) };
                tx.audit(&origin, &AuditRecord::of(account.key, Action::PortalLinkCreated, id))?;
                tx.store_pending_reply(pending_reply, &made)?;
                Ok(made)
            })
            .await
    }

    async fn portal_link(&self, token: KeyHash) -> Result<Option<PortalLink>, StoreError> {
        let now = self.shared.clock.now();
        self.read_short(None, move |db| {
            let sql = format!("{LINKS} WHERE p.token = ?1 AND p.expires_at > ?2");
            let parameters = params![token.as_bytes(), now.as_millis()];
            Ok(db.prepare_cached(&sql)?.query_row(parameters, from_row).optional()?)
        })
        .await
    }

    async fn portal_links(&self, owner: AccountId, page: Page) -> Result<Paged<PortalLink>, StoreError> {
        let now = self.shared.clock.now().as_millis();
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let key = account(&snapshot, owner)?.key.0;
            let sql = "SELECT COUNT(*) AS total FROM portal_links WHERE account = ?1 AND expires_at > ?2";
            let total = count(&snapshot, sql, [key, now])?;
            let sql = format!(
                "{LINKS} WHERE p.account = ?1 AND p.expires_at > ?2 ORDER BY p.expires_at DESC, p.id LIMIT ?3 OFFSET ?4"
            );
            let mut statement = snapshot.prepare_cached(&sql)?;
            let rows = statement.query_map(params![key, now, page.limit(), sql_offset(page)], from_row)?;
            Ok(Paged::exact(rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    async fn open_portal_link(&self, token: KeyHash) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let sql = "UPDATE portal_links SET opened_at = ?2 WHERE token = ?1 AND opened_at IS NULL \
                           RETURNING id, account";
                let opened = tx
                    .db
                    .prepare_cached(sql)?
                    .query_row(params![token.as_bytes(), tx.now.as_millis()], |row| {
                        Ok((PortalLinkId(uuid(row, "id")?), AccountKey(row.get("account")?)))
                    })
                    .optional()?;
                match opened {
                    Some((id, account)) => tx.audit(&origin, &AuditRecord::of(account, Action::PortalLinkOpened, id)),
                    None => Ok(()),
                }
            })
            .await
    }

    async fn delete_portal_link(&self, owner: AccountId, id: PortalLinkId) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = account(tx.db, owner)?.key;
                let sql = "DELETE FROM portal_links WHERE account = ?1 AND id = ?2 AND expires_at > ?3";
                let parameters = params![account.0, id.0.as_bytes(), tx.now.as_millis()];
                if tx.db.prepare_cached(sql)?.execute(parameters)? == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.audit(&origin, &AuditRecord::of(account, Action::PortalLinkRevoked, id))
            })
            .await
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PortalLink> {
    read_row("portal_links", row, |row| {
        Ok(PortalLink {
            id: PortalLinkId(uuid(row, "id")?),
            account: AccountId(uuid(row, "account_id")?),
            permissions: Permissions::from_column(&row.get::<_, String>("permissions")?),
            brand: row.get("brand")?,
            color: parsed(row, "color", |text: Option<String>| {
                text.map_or(Some(None), |text| Color::parse(&text).map(Some))
            })?,
            frame_origins: words(&row.get::<_, String>("frame_origins")?),
            expires_at: Timestamp::from_millis(row.get("expires_at")?),
            opened_at: time(row, "opened_at")?,
        })
    })
}
