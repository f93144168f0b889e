"""Compares exports of Azure's costs and of its token metrics with the usage that the gateway has recorded."""
