//! Stores that are opened for a copy, and for nothing else.

use tempalias_alias::{RowKey, UnixTime};

use super::{Aside, CopyError, Cursor, Origin, Page, Row, Source};
use crate::embedded::EmbeddedOffline;
use crate::redis::RedisOffline;
use crate::{Options, RedisOptions, StoreError};

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file of this machine.
    Embedded(Options),
    /// Redis or Valkey. Whether it is new does not matter: a target is made ready by the copy.
    Redis(RedisOptions),
}

/// A store that nobody serves, opened whole.
#[derive(Debug)]
pub struct Offline(Kind);

#[derive(Debug)]
enum Kind {
    Embedded(EmbeddedOffline),
    Redis(Box<RedisOffline>),
}

/// How far a copy into a store has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What is being copied.
    pub(crate) from: Origin,
    /// All rows up to this one are there.
    pub(crate) after: Option<RowKey>,
}

impl Mark {
    /// Of a copy that begins.
    pub(crate) fn first(from: &Origin) -> Self {
        Self { from: from.clone(), after: None }
    }
}

macro_rules! either {
    ($self:expr, $store:ident => $call:expr) => {
        match &$self.0 {
            Kind::Embedded($store) => $call,
            Kind::Redis($store) => $call,
        }
    };
}

impl Offline {
    /// Opens the store at `place` to be copied. Nothing of it is changed.
    ///
    /// # Errors
    /// [`CopyError`]: it is not there, not whole, or served.
    pub async fn source(place: Place) -> Result<Self, CopyError> {
        match place {
            Place::Embedded(options) => EmbeddedOffline::source(&options).map(Kind::Embedded).map(Self),
            Place::Redis(options) => {
                RedisOffline::source(options).await.map(Box::new).map(Kind::Redis).map(Self)
            }
        }
    }

    /// The store's time.
    pub(super) async fn now(&self) -> Result<UnixTime, StoreError> {
        match &self.0 {
            Kind::Embedded(store) => Ok(store.now()),
            Kind::Redis(store) => store.now().await,
        }
    }
}

impl Offline {
    /// Whether another run of the same copy has taken the place of this one.
    async fn is_overtaken(&self) -> bool {
        match &self.0 {
            // Its lock is ours.
            Kind::Embedded(_) => false,
            Kind::Redis(store) => store.is_overtaken().await,
        }
    }
}

impl Source for Offline {
    fn origin(&self) -> &Origin {
        either!(self, store => store.origin())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        either!(self, store => store.count().await)
    }

    async fn page(&self, after: Option<RowKey>) -> Result<Page, StoreError> {
        either!(self, store => store.page(after).await)
    }

    async fn asides(&self, from: Option<Cursor>) -> Result<(Vec<Aside>, Option<Cursor>), StoreError> {
        either!(self, store => store.asides(from).await)
    }

    async fn served_by(&self) -> Result<Option<String>, StoreError> {
        match &self.0 {
            // Its lock is ours.
            Kind::Embedded(_) => Ok(None),
            Kind::Redis(store) => store.served_by().await,
        }
    }
}

/// A store that a copy goes into. Until the copy is finished nobody can serve it.
#[derive(Debug)]
pub struct Target {
    pub(super) store: Offline,
    mark: Mark,
}

impl Target {
    /// Opens the store at `place` for a copy of `from`; makes it, if there is none. Goes on with an unfinished copy of
    /// the same source.
    ///
    /// # Errors
    /// [`CopyError`]: it holds something else, or is served.
    pub async fn open(place: Place, from: &Origin) -> Result<Self, CopyError> {
        let (kind, mark) = match place {
            Place::Embedded(options) => {
                let (store, mark) = EmbeddedOffline::target(&options, from).await?;
                (Kind::Embedded(store), mark)
            }
            Place::Redis(options) => {
                let (store, mark) = RedisOffline::target(options, from).await?;
                (Kind::Redis(Box::new(store)), mark)
            }
        };
        Ok(Self { store: Offline(kind), mark })
    }

    /// Whether an earlier copy has brought something already.
    pub fn is_resumed(&self) -> bool {
        self.mark.after.is_some()
    }

    pub(super) fn origin(&self) -> &Origin {
        self.store.origin()
    }

    pub(super) fn position(&self) -> Option<RowKey> {
        self.mark.after
    }

    /// An outcome in the words of a copy.
    async fn told<T>(&self, outcome: Result<T, StoreError>) -> Result<T, CopyError> {
        match outcome {
            Ok(value) => Ok(value),
            Err(_) if self.store.is_overtaken().await => {
                Err(CopyError::AnotherRun { store: self.origin().shown.clone() })
            }
            Err(why) => Err(CopyError::store(self.origin(), why)),
        }
    }

    /// The next rows in the order of their keys, after the one given.
    pub(super) async fn page(&self, after: Option<RowKey>) -> Result<Page, CopyError> {
        self.told(self.store.page(after).await).await
    }

    pub(super) async fn count(&self) -> Result<u64, CopyError> {
        self.told(self.store.count().await).await
    }

    /// Makes the range after `after` hold just the rows of `page`, and notes that it does.
    pub(super) async fn put(&self, after: Option<RowKey>, page: &Page) -> Result<(), CopyError> {
        let rows: Vec<Row> = page.rows.iter().filter_map(|row| row.clone().seen_at(page.now)).collect();
        let mark = Mark { after: page.end.or(after), ..self.mark.clone() };
        let range = (after, page.end);
        self.told(either!(self.store, store => store.put(range, rows, &mark).await)).await
    }

    pub(super) async fn put_asides(&self, asides: &[Aside]) -> Result<(), CopyError> {
        let asides = asides.to_vec();
        self.told(either!(self.store, store => store.put_asides(asides).await)).await
    }

    /// What it has of the same names, and its time.
    pub(super) async fn asides_like(
        &self,
        asides: &[Aside],
    ) -> Result<(Vec<Option<Aside>>, UnixTime), CopyError> {
        let names = asides.to_vec();
        let found = either!(self.store, store => store.asides_like(names).await);
        let found = self.told(found).await?;
        let now = self.told(self.store.now().await).await?;
        Ok((found, now))
    }

    /// Forgets how far it has come; what is there stays until it is replaced.
    pub(super) async fn begin_again(&self) -> Result<(), CopyError> {
        let mark = Mark { after: None, ..self.mark.clone() };
        self.told(either!(self.store, store => store.mark(&mark).await)).await
    }

    /// From now on it can be served.
    pub(super) async fn finish(&self) -> Result<(), CopyError> {
        if let Some(node) = self.told(self.store.served_by().await).await? {
            return Err(CopyError::Served { store: self.origin().shown.clone(), node });
        }
        self.told(either!(self.store, store => store.finish().await)).await
    }
}
