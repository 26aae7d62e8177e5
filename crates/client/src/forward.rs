//! The parts of a runtime that a wrapper of one passes on unchanged.

/// Implements, for a wrapper `Wrapper<E>` of a runtime in the field `inner` and a value of its own in a second field,
/// what it passes on: `Supervisor`, `Spawner`, `Metrics`, the clock of quotas and random numbers. Children have a clone of
/// the value. `Clock` and `Storage` are the wrapper's own. The caller depends on `commonware-runtime`, `governor` and
/// `rand_core`.
#[macro_export]
macro_rules! forward_runtime {
    ($wrapper:ident { inner, $own:ident }) => {
        impl<E: ::commonware_runtime::Supervisor> ::commonware_runtime::Supervisor for $wrapper<E> {
            fn name(&self) -> ::commonware_runtime::Name {
                self.inner.name()
            }

            fn child(&self, label: &'static str) -> Self {
                Self { inner: self.inner.child(label), $own: ::std::clone::Clone::clone(&self.$own) }
            }

            fn with_attribute(self, key: &'static str, value: impl ::std::fmt::Display) -> Self {
                Self { inner: self.inner.with_attribute(key, value), $own: self.$own }
            }
        }

        impl<E: ::commonware_runtime::Spawner> ::commonware_runtime::Spawner for $wrapper<E> {
            fn shared(self, blocking: bool) -> Self {
                Self { inner: self.inner.shared(blocking), $own: self.$own }
            }

            fn dedicated(self) -> Self {
                Self { inner: self.inner.dedicated(), $own: self.$own }
            }

            fn spawn<F, Fut, T>(self, f: F) -> ::commonware_runtime::Handle<T>
            where
                F: FnOnce(Self) -> Fut + Send + 'static,
                Fut: ::std::future::Future<Output = T> + Send + 'static,
                T: Send + 'static,
            {
                let $own = self.$own;
                self.inner.spawn(move |inner| f(Self { inner, $own }))
            }

            async fn stop(
                self,
                value: i32,
                timeout: Option<::std::time::Duration>,
            ) -> Result<(), ::commonware_runtime::Error> {
                self.inner.stop(value, timeout).await
            }

            fn stopped(&self) -> ::commonware_runtime::signal::Signal {
                self.inner.stopped()
            }
        }

        impl<E: ::commonware_runtime::Metrics> ::commonware_runtime::Metrics for $wrapper<E> {
            fn register<
                N: Into<String>,
                H: Into<String>,
                M: ::commonware_runtime::telemetry::metrics::Metric,
            >(
                &self,
                name: N,
                help: H,
                metric: M,
            ) -> ::commonware_runtime::telemetry::metrics::Registered<M> {
                self.inner.register(name, help, metric)
            }

            fn encode(&self) -> String {
                self.inner.encode()
            }
        }

        impl<E: ::commonware_runtime::Clock> ::governor::clock::Clock for $wrapper<E> {
            type Instant = ::std::time::SystemTime;

            fn now(&self) -> Self::Instant {
                ::commonware_runtime::Clock::current(self)
            }
        }

        impl<E: ::commonware_runtime::Clock> ::governor::clock::ReasonablyRealtime for $wrapper<E> {}

        impl<E: ::rand_core::TryRng> ::rand_core::TryRng for $wrapper<E> {
            type Error = E::Error;

            fn try_next_u32(&mut self) -> Result<u32, E::Error> {
                self.inner.try_next_u32()
            }

            fn try_next_u64(&mut self) -> Result<u64, E::Error> {
                self.inner.try_next_u64()
            }

            fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), E::Error> {
                self.inner.try_fill_bytes(bytes)
            }
        }

        impl<E: ::rand_core::TryCryptoRng> ::rand_core::TryCryptoRng for $wrapper<E> {}

        impl<E: ::commonware_runtime::Resolver> ::commonware_runtime::Resolver for $wrapper<E> {
            async fn resolve(
                &self,
                host: &str,
            ) -> Result<Vec<::std::net::IpAddr>, ::commonware_runtime::Error> {
                self.inner.resolve(host).await
            }
        }
    };
}

/// Implements `Clock` for a wrapper `Wrapper<E>` whose time is that of the runtime in its field `inner`. The caller
/// depends on `commonware-runtime`.
#[macro_export]
macro_rules! forward_clock {
    ($wrapper:ident) => {
        impl<E: ::commonware_runtime::Clock> ::commonware_runtime::Clock for $wrapper<E> {
            fn current(&self) -> ::std::time::SystemTime {
                self.inner.current()
            }

            fn sleep(
                &self,
                duration: ::std::time::Duration,
            ) -> impl ::std::future::Future<Output = ()> + Send + 'static + use<E> {
                self.inner.sleep(duration)
            }

            fn sleep_until(
                &self,
                deadline: ::std::time::SystemTime,
            ) -> impl ::std::future::Future<Output = ()> + Send + 'static + use<E> {
                self.inner.sleep_until(deadline)
            }
        }
    };
}
