-- What time it is here. KEYS: any, so that a Cluster knows whom to ask. ARGV: none.
return text(time_now(ARGV[1]))
