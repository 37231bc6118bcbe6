"""The recipe of the preset `mini`: photographs with captions teach the tower, the query adapter and the last layers."""
