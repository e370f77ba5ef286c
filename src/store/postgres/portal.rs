//! Portal links: they open an account's pages to somebody who is no user.

use tokio_postgres::Row;

use super::catalog_rows::{account, lock_account};
use super::sql::{corrupt, count, execute, get, offset, read_row, row, rows, snapshot, text, time, when};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use super::users::hash_of;
use crate::domain::account::KeyHash;
use crate::domain::audit::Action;
use crate::domain::id::{AccountId, AccountKey, PortalLinkId};
use crate::domain::permission::Permissions;
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
        let now = self.now();
        let mut client = self.client_for(Some(new.account)).await?;
        let tx = client.transaction().await?;
        let account = lock_account(&tx, new.account).await?.key;
        let resource = PortalLink {
            id: PortalLinkId::from_random(self.shared.random.array()),
            account: new.account,
            permissions: new.permissions,
            brand: new.brand.map(text),
            color: new.color,
            frame_origins: new.frame_origins,
            expires_at: new.expires_at,
            opened_at: None,
        };
        let token = self.draw_token();
        let sql = "INSERT INTO portal_links (token, id, account, permissions, brand, color, frame_origins, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let parameters: super::sql::Params<'_> = &[
            &hash_of(&token),
            &resource.id.0,
            &account.0,
            &resource.permissions.to_column(),
            &resource.brand,
            &resource.color.map(|color| color.to_string()),
            &resource.frame_origins.join(" "),
            &resource.expires_at.as_millis(),
        ];
        execute(&tx, sql, parameters).await?;
        let made = WithToken { resource, token: Some(token) };
        self.audit(&tx, &AuditRecord::of(account, Action::PortalLinkCreated, made.resource.id), now).await?;
        write_pending_reply(&tx, pending_reply, &made, now).await?;
        tx.commit().await?;
        Ok(made)
    }

    async fn portal_link(&self, token: KeyHash) -> Result<Option<PortalLink>, StoreError> {
        let sql = format!("{LINKS} WHERE p.token = $1 AND p.expires_at > $2");
        let parameters: super::sql::Params<'_> = &[&token.as_bytes().as_slice(), &self.now().as_millis()];
        row(&self.client().await?, &sql, parameters).await?.as_ref().map(from_row).transpose()
    }

    async fn portal_links(&self, owner: AccountId, page: Page) -> Result<Paged<PortalLink>, StoreError> {
        let now = self.now().as_millis();
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let key = account(&db, owner).await?.key.0;
            let sql = "SELECT count(*) AS total FROM portal_links WHERE account = $1 AND expires_at > $2";
            let total = count(&db, sql, &[&key, &now]).await?;
            let sql = format!(
                "{LINKS} WHERE p.account = $1 AND p.expires_at > $2 ORDER BY p.expires_at DESC, p.id LIMIT $3 OFFSET $4"
            );
            let found = rows(&db, &sql, &[&key, &now, &i64::from(page.limit()), &offset(page)]).await?;
            Ok(Paged::exact(found.iter().map(from_row).collect::<Result<_, _>>()?, total))
        }
        .await;
        client.end(found)
    }

    async fn open_portal_link(&self, token: KeyHash) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = "UPDATE portal_links SET opened_at = $2 WHERE token = $1 AND opened_at IS NULL RETURNING id, account";
        let Some(opened) = row(&tx, sql, &[&token.as_bytes().as_slice(), &now.as_millis()]).await? else {
            return Ok(());
        };
        let (id, account) = (PortalLinkId(get(&opened, "id")?), AccountKey(get(&opened, "account")?));
        self.audit(&tx, &AuditRecord::of(account, Action::PortalLinkOpened, id), now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn delete_portal_link(&self, owner: AccountId, id: PortalLinkId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let account = lock_account(&tx, owner).await?.key;
        let sql = "DELETE FROM portal_links WHERE account = $1 AND id = $2 AND expires_at > $3";
        if execute(&tx, sql, &[&account.0, &id.0, &now.as_millis()]).await? == 0 {
            return Err(StoreError::NotFound);
        }
        self.audit(&tx, &AuditRecord::of(account, Action::PortalLinkRevoked, id), now).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn from_row(row: &Row) -> Result<PortalLink, StoreError> {
    read_row("portal_links", row, |row| {
        let color = get::<Option<&str>>(row, "color")?;
        Ok(PortalLink {
            id: PortalLinkId(get(row, "id")?),
            account: AccountId(get(row, "account_id")?),
            permissions: Permissions::from_column(get(row, "permissions")?),
            brand: get(row, "brand")?,
            color: color.map(|text| Color::parse(text).ok_or_else(|| corrupt("color"))).transpose()?,
            frame_origins: words(get(row, "frame_origins")?),
            expires_at: when(row, "expires_at")?,
            opened_at: time(row, "opened_at")?,
        })
    })
}
