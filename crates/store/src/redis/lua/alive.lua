-- Whether the lease of a node holds. KEYS: marker, lease.
return redis.call('EXISTS', KEYS[2])
