"""What happens around each fetch: callables that wrap a handler in another, one small file each."""
