// MongoDB's image runs this once, as the administrator, at the first start on an empty volume.
// The user lies in the database "admin", where the gateway logs in, and may read and write the database "gateway" only.
db.getSiblingDB("admin").createUser({
  user: process.env.MONGOUSER,
  pwd: process.env.MONGOPASSWORD,
  roles: [{ role: "readWrite", db: "gateway" }],
});
