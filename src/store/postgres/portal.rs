//! Portal links after they were made: what opens an account's pages, when it was first opened, and its end before its
//! time.

use tokio_postgres::Row;

use super::admin::{account, count, lock_account, offset};
use super::{Store, corrupt, execute, get, row, rows, snapshot, time, when};
use crate::domain::account::KeyHash;
use crate::domain::audit::Action;
use crate::domain::id::{AccountId, AccountKey, PortalLinkId};
use crate::domain::permission::Permissions;
use crate::domain::user::{Color, PortalLink};
use crate::store::shared::{Deed, words};
use crate::store::{Page, Paged, StoreError};

/// The columns of a link, and its account where that is there.
const LINKS: &str = "SELECT p.id, p.permissions, p.brand, p.color, p.frame_origins, p.expires_at, p.opened_at, \
                     a.id AS account_id \
                     FROM portal_links p JOIN accounts a ON a.key = p.account AND a.deleted_at IS NULL";

impl Store {
    pub async fn portal_link(&self, token: KeyHash) -> Result<Option<PortalLink>, StoreError> {
        let sql = format!("{LINKS} WHERE p.token = $1 AND p.expires_at > $2");
        let parameters: super::Params<'_> = &[&token.as_bytes().as_slice(), &self.now().as_millis()];
        row(&self.client().await?, &sql, parameters).await?.as_ref().map(from_row).transpose()
    }

    pub async fn portal_links(&self, owner: AccountId, page: Page) -> Result<Paged<PortalLink>, StoreError> {
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

    pub async fn open_portal_link(&self, token: KeyHash) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = "UPDATE portal_links SET opened_at = $2 WHERE token = $1 AND opened_at IS NULL RETURNING id, account";
        let Some(opened) = row(&tx, sql, &[&token.as_bytes().as_slice(), &now.as_millis()]).await? else {
            return Ok(());
        };
        let (id, account) = (PortalLinkId(get(&opened, "id")?), AccountKey(get(&opened, "account")?));
        self.audit(&tx, &Deed::of(account, Action::PortalLinkOpened, id), now).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn delete_portal_link(&self, owner: AccountId, id: PortalLinkId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let account = lock_account(&tx, owner).await?.key;
        let sql = "DELETE FROM portal_links WHERE account = $1 AND id = $2 AND expires_at > $3";
        if execute(&tx, sql, &[&account.0, &id.0, &now.as_millis()]).await? == 0 {
            return Err(StoreError::NotFound);
        }
        self.audit(&tx, &Deed::of(account, Action::PortalLinkRevoked, id), now).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn from_row(row: &Row) -> Result<PortalLink, StoreError> {
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
}
