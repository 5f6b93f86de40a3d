"""Retrieve, PreRank and Recommend over REST and gRPC; everything it knows comes from a bundle."""
